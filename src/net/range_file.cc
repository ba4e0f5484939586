// open_range_file: random access that goes straight to the source, large reads in parallel.
#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>

#include "net/arrow_status.h"
#include "net/io_pool.h"
#include "net/ranges.h"

namespace lorry::net {
namespace {

constexpr int64_t kPiece = 8 << 20;
constexpr int64_t kHelpers = 7;

/// A read that several threads share out among themselves, piece by piece.
class SharedRead {
 public:
  SharedRead(std::shared_ptr<RangeSource> source, int64_t offset, std::span<char> into)
      : source_(std::move(source)),
        offset_(offset),
        into_(into),
        pieces_((int64_t(into.size()) + kPiece - 1) / kPiece) {}

  int64_t pieces() const { return pieces_; }

  /// Reads pieces until none is left to begin.
  void help() {
    for (;;) {
      const int64_t piece = next_.fetch_add(1);
      if (piece >= pieces_) return;
      const size_t begin = size_t(piece * kPiece);
      const size_t size = std::min(size_t(kPiece), into_.size() - begin);
      Result<> result;
      if (!failed_) result = source_->read(offset_ + int64_t(begin), into_.subspan(begin, size));
      std::lock_guard lock(mutex_);
      if (!result.ok() && !failed_) {
        failed_ = true;
        result_ = std::move(result);
      }
      if (++done_ == pieces_) all_done_.notify_all();
    }
  }

  Result<> wait() {
    std::unique_lock lock(mutex_);
    all_done_.wait(lock, [this] { return done_ == pieces_; });
    return result_;
  }

 private:
  const std::shared_ptr<RangeSource> source_;
  const int64_t offset_;
  const std::span<char> into_;
  const int64_t pieces_;
  std::atomic<int64_t> next_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::condition_variable all_done_;
  int64_t done_ = 0;  ///< guarded by mutex_, as is result_
  Result<> result_;
};

Result<> read_in_parallel(const std::shared_ptr<RangeSource>& source, int64_t offset,
                          std::span<char> into) {
  if (int64_t(into.size()) <= kPiece) return source->read(offset, into);
  auto shared = std::make_shared<SharedRead>(source, offset, into);
  for (int64_t i = 1; i < std::min(shared->pieces(), kHelpers + 1); ++i) {
    run_in_background([shared] { shared->help(); });
  }
  shared->help();
  return shared->wait();
}

class RangeFile final : public arrow::io::RandomAccessFile {
 public:
  explicit RangeFile(std::shared_ptr<RangeSource> source) : source_(std::move(source)) {
    set_mode(arrow::io::FileMode::READ);
  }

  arrow::Result<int64_t> GetSize() override {
    if (closed_) return arrow::Status::Invalid("file is closed");
    return source_->size();
  }

  arrow::Result<int64_t> ReadAt(int64_t position, int64_t size, void* out) override {
    if (closed_) return arrow::Status::Invalid("file is closed");
    if (position < 0 || size < 0 || position > source_->size()) {
      return arrow::Status::Invalid(
          fmt::format("{}: no byte {} in {}", source_->name(), position, source_->size()));
    }
    const int64_t there = std::min(size, source_->size() - position);
    if (there == 0) return 0;
    auto result = read_in_parallel(source_, position, {static_cast<char*>(out), size_t(there)});
    if (!result.ok()) return to_arrow(result.error());
    return there;
  }

  arrow::Result<std::shared_ptr<arrow::Buffer>> ReadAt(int64_t position, int64_t size) override {
    const int64_t most = std::max<int64_t>(0, std::min(size, source_->size() - position));
    ARROW_ASSIGN_OR_RAISE(auto buffer, arrow::AllocateResizableBuffer(most));
    ARROW_ASSIGN_OR_RAISE(const int64_t got, ReadAt(position, most, buffer->mutable_data()));
    ARROW_RETURN_NOT_OK(buffer->Resize(got, /*shrink_to_fit=*/false));
    return std::shared_ptr<arrow::Buffer>(std::move(buffer));
  }

  arrow::Result<int64_t> Read(int64_t size, void* out) override {
    ARROW_ASSIGN_OR_RAISE(const int64_t got, ReadAt(position_, size, out));
    position_ += got;
    return got;
  }

  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t size) override {
    ARROW_ASSIGN_OR_RAISE(auto buffer, ReadAt(position_, size));
    position_ += buffer->size();
    return buffer;
  }

  arrow::Status Seek(int64_t position) override {
    if (position < 0) return arrow::Status::Invalid("cannot seek before the start");
    position_ = position;
    return arrow::Status::OK();
  }
  arrow::Result<int64_t> Tell() const override { return position_; }
  arrow::Status Close() override {
    closed_ = true;
    return arrow::Status::OK();
  }
  bool closed() const override { return closed_; }

 private:
  std::shared_ptr<RangeSource> source_;
  int64_t position_ = 0;  ///< of Read and Seek, which are for one thread
  std::atomic<bool> closed_{false};
};

}  // namespace

std::shared_ptr<arrow::io::RandomAccessFile> open_range_file(std::shared_ptr<RangeSource> source) {
  return std::make_shared<RangeFile>(std::move(source));
}

}  // namespace lorry::net

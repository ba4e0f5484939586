#include "data/read_ahead.h"

#include <arrow/buffer.h>
#include <arrow/result.h>
#include <arrow/status.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

namespace lorry::data {
namespace {

using Piece = arrow::Result<std::shared_ptr<arrow::Buffer>>;

class ReadAhead final : public arrow::io::InputStream {
 public:
  ReadAhead(std::shared_ptr<arrow::io::RandomAccessFile> file, int64_t offset,
            ReadAheadOptions options)
      : file_(std::move(file)), options_(options), next_ask_(offset), position_(offset) {
    set_mode(arrow::io::FileMode::READ);
    auto size = file_->GetSize();
    if (size.ok()) {
      size_ = *size;
    } else {
      failed_ = size.status();
    }
  }
  ~ReadAhead() override { stop(); }

  arrow::Status Close() override {
    stop();
    return arrow::Status::OK();
  }
  bool closed() const override { return stopping_; }
  arrow::Result<int64_t> Tell() const override { return position_; }

  arrow::Result<int64_t> Read(int64_t bytes, void* out) override {
    int64_t done = 0;
    while (done < bytes) {
      ARROW_ASSIGN_OR_RAISE(const bool there, find_piece());
      if (!there) break;
      const int64_t take = std::min(bytes - done, piece_->size() - used_);
      std::memcpy(static_cast<char*>(out) + done, piece_->data() + used_, size_t(take));
      done += take;
      used_ += take;
      position_ += take;
    }
    return done;
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t bytes) override {
    ARROW_ASSIGN_OR_RAISE(auto buffer, arrow::AllocateResizableBuffer(bytes));
    ARROW_ASSIGN_OR_RAISE(const int64_t got, Read(bytes, buffer->mutable_data()));
    ARROW_RETURN_NOT_OK(buffer->Resize(got));
    return std::shared_ptr<arrow::Buffer>(std::move(buffer));
  }

 private:
  /// Makes `piece_` hold unread bytes; false at the end.
  arrow::Result<bool> find_piece() {
    if (piece_ && used_ < piece_->size()) return true;
    ARROW_RETURN_NOT_OK(failed_);
    if (position_ >= size_) return false;
    start();
    std::unique_lock lock(mutex_);
    if (piece_) --held_;
    piece_.reset();
    wake_.notify_all();
    wake_.wait(lock, [&] { return ready_.count(position_) > 0; });
    auto found = ready_.extract(position_);
    lock.unlock();
    if (!found.mapped().ok()) return failed_ = found.mapped().status();
    piece_ = *std::move(found.mapped());
    used_ = 0;
    const int64_t want = std::min(options_.piece_bytes, size_ - position_);
    if (piece_->size() == want) return true;
    return failed_ = arrow::Status::IOError("read ", piece_->size(), " bytes in place of ", want,
                                            " at byte ", position_, ": it is shorter than it was");
  }

  void start() {
    if (!threads_.empty()) return;
    const int64_t pieces = (size_ - position_ + options_.piece_bytes - 1) / options_.piece_bytes;
    for (int i = 0; i < std::min<int64_t>(options_.pieces, pieces); ++i) {
      threads_.emplace_back([this] { work(); });
    }
  }

  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [&] { return stopping_ || next_ask_ >= size_ || held_ < options_.pieces; });
      if (stopping_ || next_ask_ >= size_) return;
      const int64_t at = next_ask_;
      next_ask_ += options_.piece_bytes;
      ++held_;
      lock.unlock();
      Piece piece = file_->ReadAt(at, std::min(options_.piece_bytes, size_ - at));
      lock.lock();
      ready_.emplace(at, std::move(piece));
      wake_.notify_all();
    }
  }

  void stop() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }

  std::shared_ptr<arrow::io::RandomAccessFile> file_;
  const ReadAheadOptions options_;
  int64_t size_ = 0;
  arrow::Status failed_;

  std::mutex mutex_;
  std::condition_variable wake_;
  int64_t next_ask_;  // these four: guarded by mutex_
  int held_ = 0;      ///< pieces asked for and not yet let go
  std::map<int64_t, Piece> ready_;
  bool stopping_ = false;

  std::shared_ptr<arrow::Buffer> piece_;  ///< being taken from; counts in held_
  int64_t used_ = 0;
  int64_t position_;
  std::vector<std::thread> threads_;
};

}  // namespace

std::shared_ptr<arrow::io::InputStream> read_ahead(
    std::shared_ptr<arrow::io::RandomAccessFile> file, int64_t offset, ReadAheadOptions options) {
  return std::make_shared<ReadAhead>(std::move(file), offset, options);
}

}  // namespace lorry::data

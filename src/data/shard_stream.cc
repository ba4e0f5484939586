// One shard from front to back: file after file as streams, checksums kept as the bytes pass.
#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>
#include <arrow/ipc/reader.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <fmt/format.h>

#include "base/crc32c.h"
#include "data/shard.h"
#include "store/arrow_error.h"

namespace lorry::data {
namespace {

/// Passes bytes on, counting them and keeping their checksum.
class CheckedStream final : public arrow::io::InputStream {
 public:
  explicit CheckedStream(std::shared_ptr<arrow::io::InputStream> inner) : inner_(std::move(inner)) {
    set_mode(arrow::io::FileMode::READ);
  }
  arrow::Result<int64_t> Read(int64_t bytes, void* out) override {
    auto got = inner_->Read(bytes, out);
    failed_ = !got.ok();
    if (got.ok()) count(out, *got);
    return got;
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t bytes) override {
    // A damaged length must not become an allocation of terabytes.
    if (bytes > limit_ - size_) bytes = limit_ - size_;
    auto got = inner_->Read(bytes);
    failed_ = !got.ok();
    if (got.ok()) count((*got)->data(), (*got)->size());
    return got;
  }
  arrow::Status Close() override { return inner_->Close(); }
  bool closed() const override { return inner_->closed(); }
  arrow::Result<int64_t> Tell() const override { return size_; }

  void set_limit(int64_t limit) { limit_ = limit; }
  bool failed() const { return failed_; }  ///< the store did not answer: no damage
  int64_t size() const { return size_; }
  uint32_t crc32c() const { return crc_; }

 private:
  void count(const void* data, int64_t size) {
    crc_ = lorry::crc32c(crc_, data, size_t(size));
    size_ += size;
  }

  std::shared_ptr<arrow::io::InputStream> inner_;
  int64_t limit_ = INT64_MAX;
  int64_t size_ = 0;
  uint32_t crc_ = 0;
  bool failed_ = false;
};

}  // namespace

struct ShardStream::Impl {
  const store::Bucket& bucket;
  std::string dir;
  std::vector<ShardFile> files;
  size_t file = 0;  ///< being read
  std::shared_ptr<CheckedStream> bytes;
  std::shared_ptr<arrow::ipc::RecordBatchStreamReader> ipc;
  std::shared_ptr<arrow::Schema> schema;
  int64_t rows = 0;

  Impl(const store::Bucket& from, std::string shard) : bucket(from), dir(std::move(shard)) {}

  const std::string& path() const { return files[file].path; }

  Error damaged(const std::string& reason) const {
    return corrupt_data(fmt::format("{}: {}{}", path(), reason, mend_hint(dir)));
  }

  Result<> open_file() {
    LORRY_ASSIGN(const auto info, bucket.stat(path()));
    if (!info) return damaged("the file is missing");
    if (files[file].size >= 0 && info->size != files[file].size) {
      return damaged(
          fmt::format("{} bytes long, not {} as it was written", info->size, files[file].size));
    }
    LORRY_ASSIGN(auto stream, bucket.open_stream(path()));
    bytes = std::make_shared<CheckedStream>(std::move(stream));
    bytes->set_limit(info->size);
    auto opened = arrow::ipc::RecordBatchStreamReader::Open(bytes);
    if (!opened.ok()) return failure(opened.status());
    ipc = *std::move(opened);
    if (!schema) schema = ipc->schema();
    if (!ipc->schema()->Equals(*schema, /*check_metadata=*/false)) {
      return damaged("other columns than the shard's first file");
    }
    return {};
  }

  Error failure(const arrow::Status& status) const {
    if (bytes->failed()) return store::from_arrow(status, path());
    return damaged(fmt::format("cut short or damaged ({})", store::arrow_reason(status)));
  }

  /// Reads what follows the last batch, then compares.
  Result<> close_file() {
    char scrap[4096];
    while (true) {
      auto got = bytes->Read(sizeof(scrap), scrap);
      if (!got.ok()) return failure(got.status());
      if (*got == 0) break;
    }
    const ShardFile& want = files[file];
    if (want.size >= 0 && (bytes->size() != want.size || bytes->crc32c() != want.crc32c)) {
      return damaged(fmt::format("damaged: checksum {}, not {} as it was written",
                                 crc32c_hex(bytes->crc32c()), crc32c_hex(want.crc32c)));
    }
    ipc.reset();
    bytes.reset();
    ++file;
    return {};
  }

  Result<std::shared_ptr<arrow::RecordBatch>> next() {
    while (file < files.size()) {
      if (!ipc) LORRY_TRY(open_file());
      std::shared_ptr<arrow::RecordBatch> batch;
      arrow::Status status = ipc->ReadNext(&batch);
      if (status.ok() && batch) status = batch->ValidateFull();
      if (!status.ok()) return failure(status);
      if (!batch) {
        LORRY_TRY(close_file());
      } else if (batch->num_rows() > 0) {
        rows += batch->num_rows();
        return batch;
      }
    }
    return std::shared_ptr<arrow::RecordBatch>();
  }
};

ShardStream::ShardStream(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ShardStream::~ShardStream() = default;

Result<std::unique_ptr<ShardStream>> ShardStream::open(const store::Bucket& bucket,
                                                       const std::string& dir) {
  auto impl = std::make_unique<Impl>(bucket, dir);
  LORRY_ASSIGN(impl->files, shard_files(bucket, dir));
  if (impl->files.empty()) {
    return corrupt_data(fmt::format("{}: no data files{}", dir, mend_hint(dir)));
  }
  LORRY_TRY(impl->open_file());
  return std::unique_ptr<ShardStream>(new ShardStream(std::move(impl)));
}

std::shared_ptr<arrow::Schema> ShardStream::schema() const { return impl_->schema; }
Result<std::shared_ptr<arrow::RecordBatch>> ShardStream::next() { return impl_->next(); }
int64_t ShardStream::rows() const { return impl_->rows; }

}  // namespace lorry::data

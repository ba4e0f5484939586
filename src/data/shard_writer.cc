#include <arrow/array.h>
#include <arrow/array/concatenate.h>
#include <arrow/io/interfaces.h>
#include <arrow/ipc/writer.h>
#include <arrow/record_batch.h>
#include <arrow/util/byte_size.h>
#include <arrow/util/key_value_metadata.h>
#include <fmt/format.h>
#include <zlib.h>  // crc32

#include <charconv>
#include <deque>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "data/shard.h"
#include "store/arrow_error.h"

namespace lorry::data {
namespace {

/// A record batch past this is written in halves, so that readers never meet one of gigabytes.
constexpr int64_t kMaxBatchBytes = 64LL << 20;

/// Passes bytes on, counting them and keeping their CRC-32.
class CountingStream final : public arrow::io::OutputStream {
 public:
  explicit CountingStream(arrow::io::OutputStream& to) : to_(to) {
    set_mode(arrow::io::FileMode::WRITE);
  }
  arrow::Status Write(const void* data, int64_t size) override {
    crc_ = ::crc32_z(crc_, static_cast<const Bytef*>(data), size_t(size));
    bytes_ += size;
    return to_.Write(data, size);
  }
  arrow::Status Write(const std::shared_ptr<arrow::Buffer>& data) override {
    return Write(data->data(), data->size());
  }
  arrow::Status Close() override { return arrow::Status::OK(); }
  bool closed() const override { return false; }
  arrow::Result<int64_t> Tell() const override { return bytes_; }
  uint32_t crc() const { return uint32_t(crc_); }
  int64_t bytes() const { return bytes_; }

 private:
  arrow::io::OutputStream& to_;
  uLong crc_ = 0;
  int64_t bytes_ = 0;
};

/// The schema with the metadata by which `datasets` recognises its features.
std::shared_ptr<arrow::Schema> with_features(const arrow::Schema& schema) {
  Json metadata;
  metadata["info"]["features"] = features_from_schema(schema);
  return schema.WithMetadata(arrow::key_value_metadata({"huggingface"}, {dump_json(metadata)}));
}

/// New arrays with zero offsets and zeroed padding: equal rows give equal bytes.
arrow::Result<std::shared_ptr<arrow::RecordBatch>> join(
    const std::shared_ptr<arrow::Schema>& schema, const arrow::RecordBatchVector& parts) {
  int64_t rows = 0;
  for (const auto& part : parts) rows += part->num_rows();
  arrow::ArrayVector columns;
  for (int c = 0; c < schema->num_fields(); ++c) {
    arrow::ArrayVector chunks;
    for (const auto& part : parts) chunks.push_back(part->column(c));
    ARROW_ASSIGN_OR_RAISE(auto column, arrow::Concatenate(chunks));
    columns.push_back(std::move(column));
  }
  return arrow::RecordBatch::Make(schema, rows, std::move(columns));
}

}  // namespace

struct ShardWriter::Impl {
  std::shared_ptr<store::Bucket> bucket;
  std::string dir;
  std::shared_ptr<arrow::Schema> schema;
  Options options;

  // The data file being written; rows wait in `pending` until they fill a record batch.
  std::unique_ptr<store::ObjectWriter> object;
  std::unique_ptr<CountingStream> stream;
  std::shared_ptr<arrow::ipc::RecordBatchWriter> ipc;
  arrow::RecordBatchVector pending;
  int64_t pending_rows = 0;

  Json files = Json::array();
  Sha256 fingerprint;
  int64_t rows = 0;
  int64_t bytes = 0;

  Result<> write(const arrow::RecordBatch& batch) {
    int64_t at = 0;
    while (at < batch.num_rows()) {
      const int64_t take = std::min(batch.num_rows() - at, options.rows_per_batch - pending_rows);
      pending.push_back(batch.Slice(at, take));
      pending_rows += take;
      at += take;
      if (pending_rows == options.rows_per_batch) LORRY_TRY(flush());
    }
    rows += batch.num_rows();
    return own_pending();
  }

  /// What stays pending is copied, so that the caller's batch can be freed.
  Result<> own_pending() {
    if (pending.empty()) return {};
    if (pending.size() > 16 || pending_rows < 64) {
      LORRY_ASSIGN(auto joined, store::from_arrow(join(schema, pending), dir));
      pending.assign(1, std::move(joined));
    }
    return {};
  }

  Result<> flush() {
    if (pending.empty()) return {};
    LORRY_ASSIGN(auto joined, store::from_arrow(join(schema, pending), dir));
    pending.clear();
    pending_rows = 0;
    return write_batch(*joined);
  }

  Result<> write_batch(const arrow::RecordBatch& batch) {
    LORRY_ASSIGN(const int64_t size,
                 store::from_arrow(arrow::util::ReferencedBufferSize(batch), dir));
    if (size > kMaxBatchBytes && batch.num_rows() > 1) {
      const int64_t half = batch.num_rows() / 2;
      for (const auto& part : {batch.Slice(0, half), batch.Slice(half)}) {
        LORRY_ASSIGN(auto own, store::from_arrow(join(schema, {part}), dir));
        LORRY_TRY(write_batch(*own));
      }
      return {};
    }
    if (stream && stream->bytes() + size > options.max_file_bytes) LORRY_TRY(close_file());
    if (!stream) LORRY_TRY(open_file());
    LORRY_ARROW_TRY(ipc->WriteRecordBatch(batch), dir);
    return {};
  }

  Result<> open_file() {
    LORRY_ASSIGN(object, bucket->create(store::join_path(dir, file_name())));
    stream = std::make_unique<CountingStream>(object->stream());
    LORRY_ASSIGN(ipc, store::from_arrow(arrow::ipc::MakeStreamWriter(stream.get(), schema), dir));
    return {};
  }

  std::string file_name() const { return fmt::format("data-{:05d}.arrow", files.size()); }

  Result<> close_file() {
    LORRY_ARROW_TRY(ipc->Close(), dir);
    ipc.reset();
    fingerprint.update(fmt::format("{} {:08x}\n", stream->bytes(), stream->crc()));
    bytes += stream->bytes();
    stream.reset();
    LORRY_TRY(object->commit());
    object.reset();
    const std::string name = file_name();
    files.push_back(Json{{"filename", name}});
    return {};
  }

  /// As `Dataset.save_to_disk` writes it. The fingerprint names the contents, for the caches that
  /// `datasets` keeps by it.
  Result<> finish() {
    LORRY_TRY(flush());
    if (!stream && files.empty()) LORRY_TRY(open_file());
    if (stream) LORRY_TRY(close_file());
    Json info;
    info["citation"] = "";
    info["description"] = "";
    info["features"] = features_from_schema(*schema);
    info["homepage"] = "";
    info["license"] = "";
    LORRY_TRY(bucket->write(store::join_path(dir, "dataset_info.json"), dump_json(info, 2)));
    Json state;
    state["_data_files"] = files;
    state["_fingerprint"] = fingerprint.hex().substr(0, 16);
    state["_format_columns"] = nullptr;
    state["_format_kwargs"] = Json::object();
    state["_format_type"] = nullptr;
    state["_output_all_columns"] = false;
    state["_split"] = nullptr;
    return bucket->write(store::join_path(dir, "state.json"), dump_json(state, 2));
  }
};

ShardWriter::ShardWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ShardWriter::~ShardWriter() = default;

Result<std::unique_ptr<ShardWriter>> ShardWriter::create(std::shared_ptr<store::Bucket> bucket,
                                                         std::string dir,
                                                         std::shared_ptr<arrow::Schema> schema,
                                                         Options options) {
  LORRY_TRY(bucket->remove(dir));
  auto impl = std::make_unique<Impl>();
  impl->bucket = std::move(bucket);
  impl->dir = std::move(dir);
  impl->schema = with_features(*schema);
  impl->options = options;
  return std::unique_ptr<ShardWriter>(new ShardWriter(std::move(impl)));
}

Result<> ShardWriter::write(const arrow::RecordBatch& batch) {
  if (!batch.schema()->Equals(*impl_->schema, /*check_metadata=*/false)) {
    return invalid_input(fmt::format("{}: rows of another schema than the shard's: {}", impl_->dir,
                                     batch.schema()->ToString()));
  }
  return impl_->write(batch);
}

int64_t ShardWriter::rows() const { return impl_->rows; }
Result<> ShardWriter::finish() { return impl_->finish(); }

Result<> remove_shards(const store::Bucket& bucket, const std::string& dir, int64_t from) {
  LORRY_ASSIGN(const auto children, bucket.list(dir));
  for (const auto& child : children) {
    const std::string_view name = std::string_view(child.path).substr(child.path.rfind('/') + 1);
    int64_t number = -1;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (!child.is_directory || error != std::errc() || end != name.data() + name.size()) continue;
    if (number >= from) LORRY_TRY(bucket.remove(child.path));
  }
  return {};
}

}  // namespace lorry::data

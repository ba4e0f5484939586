#include <arrow/array.h>
#include <arrow/array/concatenate.h>
#include <arrow/io/interfaces.h>
#include <arrow/ipc/writer.h>
#include <arrow/record_batch.h>
#include <arrow/util/byte_size.h>
#include <arrow/util/key_value_metadata.h>
#include <fmt/format.h>

#include <charconv>
#include <deque>
#include <future>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/crc32c.h"
#include "base/digest.h"
#include "data/ordered_work.h"
#include "data/row_bytes.h"
#include "data/shard.h"
#include "store/arrow_error.h"

namespace lorry::data {
namespace {

/// A record batch ends before it is longer than this (a row may be), so that neither this writer
/// nor a reader ever holds much.
constexpr int64_t kMaxBatchBytes = 16LL << 20;
/// Record batches that wait to be written hold no more than this; a longer one is waited for.
constexpr int64_t kMaxWaitingBytes = 8LL << 20;

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

  // Rows wait in `pending` until they fill a record batch.
  arrow::RecordBatchVector pending;
  int64_t pending_rows = 0;
  int64_t pending_bytes = 0;
  Json state = Json::object();
  int64_t rows = 0;

  // From here to `fingerprint` all belongs to the task that runs; `finish` waits for the last.
  // The data file being written.
  std::unique_ptr<store::ObjectWriter> object;
  bool open = false;
  std::shared_ptr<arrow::ipc::RecordBatchWriter> ipc;

  // The file before, being made durable meanwhile.
  std::unique_ptr<store::ObjectWriter> closing;
  std::future<Result<>> closed;

  Json files = Json::array();
  Sha256 fingerprint;

  // Writing a batch (a copy, a checksum, the store) takes as long as making one: it has a thread of
  // its own.
  std::deque<int64_t> waiting;  ///< bytes of the batches of `writing`
  int64_t waiting_bytes = 0;
  OrderedWork<Result<>> writing{1};

  ~Impl() {
    writing.clear();
    if (closed.valid()) closed.wait();
  }

  Result<> write(const arrow::RecordBatch& batch) {
    int64_t at = 0;
    while (at < batch.num_rows()) {
      const int64_t take = rows_that_fit(batch, at);
      if (take == 0) {
        LORRY_TRY(flush());
        continue;
      }
      pending.push_back(batch.Slice(at, take));
      pending_rows += take;
      pending_bytes += row_bytes(batch, at, at + take);
      at += take;
      const bool full = pending_rows == options.rows_per_batch || pending_bytes >= kMaxBatchBytes;
      if (full) LORRY_TRY(flush());
    }
    rows += batch.num_rows();
    return join_many();
  }

  /// Of the rows from `at` on, those that the record batch at hand still takes; at least one if it
  /// is empty.
  int64_t rows_that_fit(const arrow::RecordBatch& batch, int64_t at) const {
    int64_t most = std::min(batch.num_rows() - at, options.rows_per_batch - pending_rows);
    const int64_t room = kMaxBatchBytes - pending_bytes;
    if (row_bytes(batch, at, at + most) <= room) return most;
    int64_t least = 0;  // these fit, `most` do not
    while (most - least > 1) {
      const int64_t middle = least + (most - least) / 2;
      (row_bytes(batch, at, at + middle) <= room ? least : most) = middle;
    }
    return pending_rows == 0 ? std::max<int64_t>(least, 1) : least;
  }

  /// Many small pieces would keep many small buffers.
  Result<> join_many() {
    if (pending.size() > 16) {
      LORRY_ASSIGN(auto joined, store::from_arrow(join(schema, pending), dir));
      pending.assign(1, std::move(joined));
    }
    return {};
  }

  /// Hands the pending rows to the thread that writes. The error is that of an earlier batch.
  Result<> flush() {
    if (pending.empty()) return {};
    while (!writing.empty() && waiting_bytes + pending_bytes > kMaxWaitingBytes) {
      LORRY_TRY(wait_for_batch());
    }
    waiting.push_back(pending_bytes);
    waiting_bytes += pending_bytes;
    writing.push([this, parts = std::exchange(pending, {})]() mutable -> Result<> {
      LORRY_ASSIGN(auto joined, store::from_arrow(join(schema, parts), dir));
      parts.clear();
      LORRY_TRY(write_batch(*joined));
      if (options.on_batch) options.on_batch(std::move(joined));
      return {};
    });
    pending_rows = pending_bytes = 0;
    return waiting_bytes > kMaxWaitingBytes ? wait_for_batch() : Result<>();
  }

  Result<> wait_for_batch() {
    auto written = writing.pop();
    waiting_bytes -= waiting.front();
    waiting.pop_front();
    return written;
  }

  /// Writes all that there is.
  Result<> drain() {
    LORRY_TRY(flush());
    while (!writing.empty()) LORRY_TRY(wait_for_batch());
    return {};
  }

  Result<> write_batch(const arrow::RecordBatch& batch) {
    LORRY_ASSIGN(const int64_t size,
                 store::from_arrow(arrow::util::ReferencedBufferSize(batch), dir));
    if (open) {
      LORRY_ASSIGN(const int64_t written, store::from_arrow(object->stream().Tell(), dir));
      if (written + size > options.max_file_bytes) LORRY_TRY(close_file());
    }
    if (!open) LORRY_TRY(open_file());
    LORRY_ARROW_TRY(ipc->WriteRecordBatch(batch), dir);
    return {};
  }

  Result<> open_file() {
    LORRY_ASSIGN(object, bucket->create(store::join_path(dir, file_name())));
    LORRY_ASSIGN(ipc,
                 store::from_arrow(arrow::ipc::MakeStreamWriter(&object->stream(), schema), dir));
    open = true;
    return {};
  }

  std::string file_name() const {
    return fmt::format("data-{:05d}.arrow", files.size() + (closing ? 1 : 0));
  }

  Result<> close_file() {
    LORRY_ARROW_TRY(ipc->Close(), dir);
    ipc.reset();
    LORRY_TRY(settle());
    open = false;
    closing = std::move(object);
    closed = std::async(std::launch::async, [writer = closing.get()] { return writer->commit(); });
    return {};
  }

  /// Waits for the file that is being made durable.
  Result<> settle() {
    if (!closing) return {};
    LORRY_TRY(closed.get());
    const auto done = std::move(closing);
    const std::string crc = crc32c_hex(done->crc32c());
    fingerprint.update(fmt::format("{} {}\n", done->size(), crc));
    files.push_back(Json{{"filename", file_name()}, {"size", done->size()}, {"crc32c", crc}});
    return {};
  }

  /// Files of an earlier writer that state.json does not name.
  Result<> remove_others() {
    LORRY_ASSIGN(const auto found, bucket->list(dir));
    for (const auto& info : found) {
      const std::string name = info.path.substr(info.path.rfind('/') + 1);
      bool named = name == "state.json" || name == "dataset_info.json" || info.is_directory;
      for (const auto& file : files) named |= file["filename"] == name;
      if (!named) LORRY_TRY(bucket->remove(info.path));
    }
    return {};
  }

  /// As `Dataset.save_to_disk` writes it. The fingerprint names the contents, for the caches that
  /// `datasets` keeps by it.
  Result<> finish() {
    LORRY_TRY(drain());
    if (!open && !closing && files.empty()) LORRY_TRY(open_file());
    if (open) LORRY_TRY(close_file());
    LORRY_TRY(settle());
    Json info;
    info["citation"] = "";
    info["description"] = "";
    info["features"] = features_from_schema(*schema);
    info["homepage"] = "";
    info["license"] = "";
    LORRY_TRY(bucket->write(store::join_path(dir, "dataset_info.json"), dump_json(info, 2)));
    Json json;
    json["_data_files"] = files;
    json["_fingerprint"] = fingerprint.hex().substr(0, 16);
    json["_format_columns"] = nullptr;
    json["_format_kwargs"] = Json::object();
    json["_format_type"] = nullptr;
    json["_output_all_columns"] = false;
    json["_split"] = nullptr;
    if (!state.empty()) json["_lorry"] = state;
    LORRY_TRY(bucket->write(store::join_path(dir, "state.json"), dump_json(json, 2)));
    return remove_others();
  }
};

ShardWriter::ShardWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ShardWriter::~ShardWriter() = default;

Result<std::unique_ptr<ShardWriter>> ShardWriter::create(std::shared_ptr<store::Bucket> bucket,
                                                         std::string dir,
                                                         std::shared_ptr<arrow::Schema> schema,
                                                         Options options) {
  LORRY_TRY(bucket->remove(store::join_path(dir, "state.json")));
  auto impl = std::make_unique<Impl>();
  impl->bucket = std::move(bucket);
  impl->dir = std::move(dir);
  impl->schema = with_features(*schema);
  impl->options = std::move(options);
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
Result<> ShardWriter::flush() { return impl_->drain(); }
void ShardWriter::set_state(const Json& state) { impl_->state.update(state); }
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

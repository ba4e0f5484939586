#include <arrow/io/interfaces.h>
#include <arrow/ipc/reader.h>
#include <arrow/record_batch.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "data/shard.h"
#include "store/arrow_error.h"

namespace lorry::data {
namespace {

Result<Json> read_state(const store::Bucket& bucket, const std::string& dir) {
  const std::string path = store::join_path(dir, "state.json");
  LORRY_ASSIGN(const bool there, bucket.exists(path));
  if (!there) {
    return not_found(fmt::format("{}: no state.json, so it is not a whole shard", dir));
  }
  LORRY_ASSIGN(const std::string text, bucket.read(path));
  auto state = parse_json(text, path);
  if (!state.ok()) return corrupt_data(state.error().message + mend_hint(dir));
  if (!state->is_object()) return corrupt_data(path + ": not a JSON object" + mend_hint(dir));
  return state;
}

}  // namespace

std::string mend_hint(std::string_view dir) {
  if (dir.starts_with("raw/")) return "; run import-dataset again with --fresh";
  if (dir.starts_with("standardized/")) return "; run standardize again with --fresh";
  if (dir.starts_with("model-ready/")) return "; run pretokenize again with --fresh";
  return "; make this shard again";
}

Result<std::optional<Json>> read_shard_state(const store::Bucket& bucket, const std::string& dir) {
  auto state = read_state(bucket, dir);
  if (!state.ok()) {
    const auto kind = state.error().kind;
    const bool none = kind == ErrorKind::kNotFound || kind == ErrorKind::kCorruptData;
    if (none) return std::optional<Json>();
    return std::move(state).error();
  }
  const auto mine = state->find("_lorry");
  if (mine == state->end() || !mine->is_object()) return std::optional<Json>();
  return std::optional<Json>(*mine);
}

Result<> write_shard_state(const store::Bucket& bucket, const std::string& dir, const Json& state) {
  LORRY_ASSIGN(Json all, read_state(bucket, dir));
  all["_lorry"] = state;
  return bucket.write(store::join_path(dir, "state.json"), dump_json(all, 2));
}

Result<std::vector<ShardFile>> shard_files(const store::Bucket& bucket, const std::string& dir) {
  const std::string path = store::join_path(dir, "state.json");
  LORRY_ASSIGN(const Json state, read_state(bucket, dir));
  std::vector<ShardFile> found;
  const auto files = state.find("_data_files");
  if (files == state.end() || !files->is_array()) {
    return corrupt_data(fmt::format("{}: no _data_files{}", path, mend_hint(dir)));
  }
  for (const auto& file : *files) {
    if (!file.is_object() || !file.contains("filename") || !file["filename"].is_string()) {
      return corrupt_data(fmt::format("{}: a data file without a name{}", path, mend_hint(dir)));
    }
    ShardFile described;
    described.path = store::join_path(dir, file["filename"].get<std::string>());
    const auto size = file.find("size"), crc = file.find("crc32c");
    if (size != file.end() && crc != file.end() && size->is_number_integer() && crc->is_string()) {
      const auto& hex = crc->get_ref<const std::string&>();
      described.size = size->get<int64_t>();
      std::from_chars(hex.data(), hex.data() + hex.size(), described.crc32c, 16);
    }
    found.push_back(std::move(described));
  }
  return found;
}

struct ShardReader::Impl {
  std::shared_ptr<arrow::Schema> schema;
  arrow::RecordBatchVector batches;
  std::vector<int64_t> starts;  ///< first row of each batch
  int64_t rows = 0;

  Result<> add_file(const store::Bucket& bucket, const std::string& path) {
    auto input = bucket.open_mapped(path);
    if (!input.ok()) {
      if (input.error().kind != ErrorKind::kNotFound) return std::move(input).error();
      return corrupt_data(input.error().message + mend_hint(path));
    }
    auto opened = arrow::ipc::RecordBatchStreamReader::Open(*input);
    if (!opened.ok()) return store::from_arrow(opened.status(), path);
    auto reader = *opened;
    if (!schema) schema = reader->schema();
    if (!reader->schema()->Equals(*schema, /*check_metadata=*/false)) {
      return corrupt_data(
          fmt::format("{}: other columns than the shard's first file{}", path, mend_hint(path)));
    }
    while (true) {
      std::shared_ptr<arrow::RecordBatch> batch;
      arrow::Status status = reader->ReadNext(&batch);
      if (status.ok() && batch) status = batch->Validate();  // sizes and ends, without the data
      if (!status.ok()) {
        return corrupt_data(fmt::format("{}: cut short or damaged ({}){}", path,
                                        store::arrow_reason(status), mend_hint(path)));
      }
      if (!batch) return {};
      if (batch->num_rows() == 0) continue;
      starts.push_back(rows);
      rows += batch->num_rows();
      batches.push_back(std::move(batch));
    }
  }
};

ShardReader::ShardReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ShardReader::~ShardReader() = default;

Result<std::shared_ptr<ShardReader>> ShardReader::open(const store::Bucket& bucket,
                                                       const std::string& dir) {
  LORRY_ASSIGN(const auto files, shard_files(bucket, dir));
  auto impl = std::make_unique<Impl>();
  for (const auto& file : files) LORRY_TRY(impl->add_file(bucket, file.path));
  if (!impl->schema) return corrupt_data(fmt::format("{}: no data files{}", dir, mend_hint(dir)));
  return std::shared_ptr<ShardReader>(new ShardReader(std::move(impl)));
}

int64_t ShardReader::rows() const { return impl_->rows; }
std::shared_ptr<arrow::Schema> ShardReader::schema() const { return impl_->schema; }
int64_t ShardReader::num_batches() const { return int64_t(impl_->batches.size()); }
int64_t ShardReader::batch_start(int64_t i) const { return impl_->starts[size_t(i)]; }
std::shared_ptr<arrow::RecordBatch> ShardReader::batch(int64_t i) const {
  return impl_->batches[size_t(i)];
}

std::pair<std::shared_ptr<arrow::RecordBatch>, int64_t> ShardReader::locate(int64_t row) const {
  const auto& starts = impl_->starts;
  const auto after = std::upper_bound(starts.begin(), starts.end(), row);
  const size_t i = size_t(after - starts.begin()) - 1;
  return {impl_->batches[i], row - starts[i]};
}

}  // namespace lorry::data

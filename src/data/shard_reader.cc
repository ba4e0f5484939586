#include <arrow/io/interfaces.h>
#include <arrow/ipc/reader.h>
#include <arrow/record_batch.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/shard.h"
#include "store/arrow_error.h"

namespace lorry::data {
namespace {

constexpr char kHint[] = "; make this shard again";

Result<std::vector<std::string>> data_files(const store::Bucket& bucket, const std::string& dir) {
  const std::string path = store::join_path(dir, "state.json");
  LORRY_ASSIGN(const bool there, bucket.exists(path));
  if (!there) {
    return not_found(fmt::format("{}: no state.json, so it is not a whole shard", dir));
  }
  LORRY_ASSIGN(const std::string text, bucket.read(path));
  auto state = parse_json(text, path);
  if (!state.ok()) return corrupt_data(state.error().message + kHint);
  std::vector<std::string> names;
  const auto files = state->find("_data_files");
  if (files == state->end() || !files->is_array()) {
    return corrupt_data(fmt::format("{}: no _data_files{}", path, kHint));
  }
  for (const auto& file : *files) {
    if (!file.is_object() || !file.contains("filename") || !file["filename"].is_string()) {
      return corrupt_data(fmt::format("{}: a data file without a name{}", path, kHint));
    }
    names.push_back(file["filename"].get<std::string>());
  }
  return names;
}

}  // namespace

struct ShardReader::Impl {
  std::shared_ptr<arrow::Schema> schema;
  arrow::RecordBatchVector batches;
  std::vector<int64_t> starts;  ///< first row of each batch
  int64_t rows = 0;

  Result<> add_file(const store::Bucket& bucket, const std::string& path) {
    auto input = bucket.open_input(path);
    if (!input.ok()) return corrupt_data(input.error().message + kHint);
    auto opened = arrow::ipc::RecordBatchStreamReader::Open(*input);
    if (!opened.ok()) return store::from_arrow(opened.status(), path);
    auto reader = *opened;
    if (!schema) schema = reader->schema();
    if (!reader->schema()->Equals(*schema, /*check_metadata=*/false)) {
      return corrupt_data(
          fmt::format("{}: other columns than the shard's first file{}", path, kHint));
    }
    while (true) {
      std::shared_ptr<arrow::RecordBatch> batch;
      arrow::Status status = reader->ReadNext(&batch);
      if (status.ok() && batch) status = batch->Validate();  // sizes and ends, without the data
      if (!status.ok()) {
        return corrupt_data(fmt::format("{}: cut short or damaged ({}){}", path,
                                        store::arrow_reason(status), kHint));
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
  LORRY_ASSIGN(const auto files, data_files(bucket, dir));
  auto impl = std::make_unique<Impl>();
  for (const auto& file : files) LORRY_TRY(impl->add_file(bucket, store::join_path(dir, file)));
  if (!impl->schema) return corrupt_data(fmt::format("{}: no data files{}", dir, kHint));
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

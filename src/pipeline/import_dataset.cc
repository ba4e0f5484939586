#include "pipeline/import_dataset.h"

#include <arrow/buffer.h>
#include <arrow/io/memory.h>
#include <arrow/ipc/dictionary.h>
#include <arrow/ipc/reader.h>
#include <arrow/ipc/writer.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>  // hardware_concurrency

#include "base/cancel.h"
#include "base/json.h"
#include "base/log.h"
#include "base/version.h"
#include "data/reader.h"
#include "data/shard.h"
#include "data/source.h"
#include "store/arrow_error.h"
#include "store/layout.h"

namespace lorry::pipeline {
namespace {

namespace fs = std::filesystem;
using data::Place;

/// Malformed rows that info.json names one by one; more are only counted.
constexpr size_t kNamedBadRows = 1000;

Json describe_inputs(const ImportDatasetOptions& options,
                     const std::vector<data::SourceFile>& files) {
  Json inputs;
  inputs["lorry_version"] = kVersion;
  inputs["source"] = Json::array();
  for (const auto& file : files) {
    std::error_code ignored;
    const auto path = file.remote ? file.path : fs::absolute(file.path, ignored).string();
    inputs["source"].push_back(
        Json{{"path", path}, {"bytes", file.size}, {"version", file.version}});
  }
  inputs["options"] =
      Json{{"shard_examples", options.shard_examples}, {"skip_bad_rows", options.skip_bad_rows}};
  return inputs;
}

Result<std::string> schema_to_hex(const arrow::Schema& schema) {
  LORRY_ASSIGN(auto buffer, store::from_arrow(arrow::ipc::SerializeSchema(schema), "schema"));
  return buffer->ToHexString();
}

Result<std::shared_ptr<arrow::Schema>> schema_from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    int byte = 0;
    std::from_chars(hex.data() + i, hex.data() + i + 2, byte, 16);
    bytes.push_back(char(byte));
  }
  arrow::io::BufferReader reader(arrow::Buffer::FromString(std::move(bytes)));
  arrow::ipc::DictionaryMemo memo;
  return store::from_arrow(arrow::ipc::ReadSchema(&reader, &memo), "progress.json");
}

/// What an interrupted import had done, kept in raw/{dataset}/progress.json after each shard.
struct Progress {
  std::string schema;               ///< Arrow IPC, hexadecimal
  std::vector<int64_t> shard_rows;  ///< of the whole shards
  Place place;                      ///< of the batch in which the next shard begins
  int64_t skip = 0;                 ///< rows of that batch that are done
  int64_t bad_rows = 0;
  Json bad = Json::array();

  Json to_json(const Json& inputs) const {
    Json json;
    json["inputs"] = inputs;
    json["schema"] = schema;
    json["shard_rows"] = shard_rows;
    json["place"] = Json{{"file", place.file},
                         {"offset", place.offset},
                         {"line", place.line},
                         {"row", place.row},
                         {"skip", skip}};
    json["bad_rows"] = bad_rows;
    json["bad"] = bad;
    return json;
  }

  static std::optional<Progress> from_json(const Json& json) {
    try {
      Progress progress;
      progress.schema = json.at("schema").get<std::string>();
      progress.shard_rows = json.at("shard_rows").get<std::vector<int64_t>>();
      const Json& place = json.at("place");
      progress.place = Place{place.at("file").get<int64_t>(), place.at("offset").get<int64_t>(),
                             place.at("line").get<int64_t>(), place.at("row").get<int64_t>()};
      progress.skip = place.at("skip").get<int64_t>();
      progress.bad_rows = json.at("bad_rows").get<int64_t>();
      progress.bad = json.at("bad");
      return progress;
    } catch (const nlohmann::json::exception&) {
      return std::nullopt;  // of another version: begin again
    }
  }
};

class Import {
 public:
  Import(const ImportDatasetOptions& options, std::string dataset)
      : options_(options), bucket_(*options.bucket), dir_(store::raw_dir(dataset)) {
    report_.dataset = std::move(dataset);
  }

  Result<ImportDatasetReport> run() {
    LORRY_ASSIGN(auto found, find_sources(options_.sources, options_.hub));
    for (const auto& note : found.notes) log::warn("{}", note);
    files_ = std::move(found.files);
    for (const auto& file : files_) report_.bytes += file.size;
    inputs_ = describe_inputs(options_, files_);
    LORRY_ASSIGN(const bool done, is_up_to_date());
    if (done) return report_;
    LORRY_TRY(open_reader());
    LORRY_TRY(begin());
    LORRY_TRY(copy_rows());
    LORRY_TRY(finish());
    return report_;
  }

 private:
  std::string progress_path() const { return store::join_path(dir_, "progress.json"); }

  Result<bool> is_up_to_date() {
    if (options_.fresh) return false;
    LORRY_ASSIGN(auto info, bucket_.read_info(dir_));
    if (!info || info->value("inputs", Json()) != inputs_) return false;
    LORRY_TRY(bucket_.remove(progress_path()));
    report_.rows = info->value("rows", int64_t(0));
    report_.dropped = info->value("dropped", int64_t(0));
    report_.shards = info->value("count", int64_t(-1)) + 1;
    report_.up_to_date = true;
    return true;
  }

  Result<> open_reader() {
    data::ReadOptions read;
    read.threads = options_.threads > 0 ? options_.threads
                                        : int(std::max(1u, std::thread::hardware_concurrency()));
    // A block is held as text, as a parsed document and as columns, threads + 2 at a time.
    read.block_bytes =
        std::clamp<int64_t>(options_.memory / (16 * (read.threads + 2)), 64 << 10, 4 << 20);
    read.skip_bad_rows = options_.skip_bad_rows;
    read.on_bad_row = [this](const std::string& message) {
      log::warn("skipped: {}", message);
      if (progress_.bad.size() < kNamedBadRows) progress_.bad.push_back(message);
    };
    read.on_scan = [this](int64_t, int64_t bytes_done) {
      scanned_ = true;
      if (options_.progress) options_.progress(0, bytes_done / 2, report_.bytes);
    };
    LORRY_ASSIGN(reader_, data::open_reader(files_, std::move(read)));
    return {};
  }

  /// Goes on from progress.json if it is of these inputs, else learns the schema and clears the
  /// way.
  Result<> begin() {
    LORRY_ASSIGN(const bool resumed, resume());
    if (resumed) return {};
    LORRY_TRY(reader_->scan());
    progress_.bad_rows = reader_->bad_rows();
    LORRY_ASSIGN(progress_.schema, schema_to_hex(*reader_->schema()));
    return remove_earlier();
  }

  Result<bool> resume() {
    if (options_.fresh) return false;
    LORRY_ASSIGN(const bool there, bucket_.exists(progress_path()));
    if (!there) return false;
    LORRY_ASSIGN(const std::string text, bucket_.read(progress_path()));
    auto json = parse_json(text, progress_path());
    if (!json.ok() || json->value("inputs", Json()) != inputs_) return false;
    auto progress = Progress::from_json(*json);
    if (!progress) return false;
    LORRY_ASSIGN(auto schema, schema_from_hex(progress->schema));
    reader_->set_schema(std::move(schema));
    LORRY_TRY(reader_->seek(progress->place));
    progress_ = std::move(*progress);
    skip_ = progress_.skip;
    for (const int64_t rows : progress_.shard_rows) report_.rows += rows;
    log::info("{}: going on after {} whole shards, {} rows", dir_, progress_.shard_rows.size(),
              report_.rows);
    return true;
  }

  /// info.json first: a half-removed import must not look complete.
  Result<> remove_earlier() {
    LORRY_TRY(bucket_.remove(store::join_path(dir_, "info.json")));
    LORRY_TRY(bucket_.remove(progress_path()));
    return data::remove_shards(bucket_, dir_, 0);
  }

  Result<> copy_rows() {
    while (true) {
      LORRY_TRY(check_cancelled());
      LORRY_ASSIGN(auto batch, reader_->next());
      if (!batch) break;
      LORRY_TRY(copy_batch(*batch));
      if (options_.progress) {
        const int64_t done = scanned_ ? (report_.bytes + batch->bytes_done) / 2 : batch->bytes_done;
        options_.progress(report_.rows, done, report_.bytes);
      }
    }
    if (writer_) LORRY_TRY(finish_shard());
    return {};
  }

  Result<> copy_batch(const data::Batch& batch) {
    int64_t at = std::exchange(skip_, 0);
    while (at < batch.rows->num_rows()) {
      if (!writer_) {
        const auto shard = int64_t(progress_.shard_rows.size());
        LORRY_ASSIGN(writer_,
                     data::ShardWriter::create(options_.bucket, store::shard_dir(dir_, shard),
                                               reader_->schema()));
      }
      const int64_t take =
          std::min(batch.rows->num_rows() - at, options_.shard_examples - writer_->rows());
      LORRY_TRY(writer_->write(*batch.rows->Slice(at, take)));
      at += take;
      report_.rows += take;
      if (writer_->rows() < options_.shard_examples) continue;
      LORRY_TRY(finish_shard());
      progress_.place = batch.begin;
      progress_.skip = at;
      LORRY_TRY(bucket_.write(progress_path(), dump_json(progress_.to_json(inputs_), 1)));
    }
    return {};
  }

  Result<> finish_shard() {
    LORRY_TRY(writer_->finish());
    progress_.shard_rows.push_back(writer_->rows());
    writer_.reset();
    return {};
  }

  Result<> finish() {
    if (report_.rows == 0) return data::no_rows(files_);
    report_.shards = int64_t(progress_.shard_rows.size());
    report_.dropped = progress_.bad_rows;
    Json info;
    info["count"] = report_.shards - 1;
    info["rows"] = report_.rows;
    info["shard_rows"] = progress_.shard_rows;
    info["dropped"] = report_.dropped;
    info["dropped_rows"] = progress_.bad;
    info["bytes"] = report_.bytes;
    info["columns"] = data::features_from_schema(*reader_->schema());
    info["inputs"] = inputs_;
    info["lorry_version"] = kVersion;
    LORRY_TRY(bucket_.write_info(dir_, info));
    return bucket_.remove(progress_path());
  }

  const ImportDatasetOptions& options_;
  store::Bucket& bucket_;
  std::string dir_;
  std::vector<data::SourceFile> files_;
  Json inputs_;
  std::unique_ptr<data::Reader> reader_;
  std::unique_ptr<data::ShardWriter> writer_;
  Progress progress_;
  int64_t skip_ = 0;  ///< rows of the next batch that an earlier run wrote
  bool scanned_ = false;
  ImportDatasetReport report_;
};

Result<> check(const ImportDatasetOptions& options) {
  if (options.sources.empty())
    return usage_error("name a file, directory, URL or Hub data set to import");
  if (options.shard_examples < 1) return usage_error("--shard-examples must be at least 1");
  if (options.skip_bad_rows < 0) return usage_error("--skip-bad-rows must not be negative");
  return {};
}

Result<StandardizeReport> standardize_after(const ImportDatasetOptions& options,
                                            const std::string& dataset) {
  StandardizeOptions next;
  next.bucket = options.bucket;
  next.dataset = dataset;
  next.format = options.format;
  next.columns = options.columns;
  next.placeholders = options.placeholders;
  next.skip_bad_rows = options.skip_bad_rows;
  next.fresh = options.fresh;
  next.threads = options.threads;
  next.progress = options.standardize_progress;
  return standardize(next);
}

}  // namespace

Result<ImportDatasetReport> import_dataset(const ImportDatasetOptions& options) {
  LORRY_TRY(check(options));
  const auto start = std::chrono::steady_clock::now();
  const std::string dataset =
      options.dataset.empty() ? default_dataset_name(options.sources[0]) : options.dataset;
  LORRY_ASSIGN(auto report, Import(options, dataset).run());
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (options.standardize) {
    LORRY_ASSIGN(report.standardized, standardize_after(options, dataset));
  }
  return report;
}

}  // namespace lorry::pipeline

#include "stages/import_dataset.h"

#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/cancel.h"
#include "base/digest.h"
#include "base/json.h"
#include "base/log.h"
#include "base/version.h"
#include "data/reader.h"
#include "data/shard.h"
#include "data/source.h"
#include "stages/import_progress.h"
#include "stages/ledger.h"
#include "stages/one_pass.h"
#include "stages/shard_work.h"
#include "store/layout.h"

namespace lorry::stages {
namespace {

namespace fs = std::filesystem;
using data::Place;

/// The one reason for which an import leaves rows out.
constexpr char kMalformed[] = "malformed";
/// Raised when the same inputs come to give other bytes.
constexpr int kFormat = 2;

Json describe_inputs(const ImportDatasetOptions& options,
                     const std::vector<data::SourceFile>& files) {
  Json inputs;
  inputs["lorry_version"] = kVersion;
  inputs["format"] = kFormat;
  inputs["source"] = Json::array();
  for (const auto& file : files) {
    // Where a local file lies says nothing of what it holds: the next machine has it elsewhere.
    const auto path = file.remote ? file.path : fs::path(file.path).filename().string();
    inputs["source"].push_back(
        Json{{"path", path}, {"bytes", file.size}, {"version", file.version}});
  }
  inputs["options"] =
      Json{{"shard_examples", options.shard_examples}, {"skip_bad_rows", options.skip_bad_rows}};
  return inputs;
}

class Import {
 public:
  Import(const ImportDatasetOptions& options, std::string dataset)
      : options_(options), dir_(store::raw_dir(dataset)) {
    report_.dataset = std::move(dataset);
  }

  Result<ImportDatasetReport> run() {
    LORRY_ASSIGN(auto found, sources::find_sources(options_.sources, options_.hub));
    for (const auto& note : found.notes) log::warn("{}", note);
    files_ = std::move(found.files);
    for (const auto& file : files_) report_.bytes += file.size;
    inputs_ = describe_inputs(options_, files_);
    LORRY_ASSIGN(bool done, is_up_to_date());
    if (done) return report_;
    LORRY_ASSIGN(claim_, claim_output(options_, options_.bucket, "import-dataset", dir_, {},
                                      sha256_hex(dump_json(inputs_))));
    options_.bucket = claim_->bucket();
    LORRY_ASSIGN(done, is_up_to_date());  // by whoever had the claim before
    if (done) return report_;
    LORRY_TRY(open_reader());
    one_pass_ = OnePass::begin(options_, report_.dataset);
    if (options_.world_size > 1) {
      LORRY_TRY(import_part());
    } else {
      LORRY_TRY(import_all());
    }
    return report_;
  }

 private:
  /// Where a shard begins, for a node that makes some of them.
  struct ShardBegin {
    Place place;
    int64_t skip = 0;  ///< rows of the batch there that are the shard's before
  };

  std::string progress_path() const { return store::join_path(dir_, "progress.json"); }

  Result<bool> is_up_to_date() {
    if (options_.fresh) return false;
    LORRY_ASSIGN(auto info, options_.bucket->read_info(dir_));
    if (!info || info->value("inputs", Json()) != inputs_) return false;
    LORRY_TRY(check_finished(options_, dir_, *info));
    if (claim_) LORRY_TRY(options_.bucket->remove(progress_path()));
    report_.digest = digest_of_info(*info);
    report_.rows = info->value("rows", int64_t(0));
    report_.dropped = info->value("dropped", int64_t(0));
    report_.shards = info->value("count", int64_t(-1)) + 1;
    report_.up_to_date = true;
    return true;
  }

  Result<> open_reader() {
    data::ReadOptions read;
    read.threads = int(worker_threads(options_));
    // The rest is for the program itself, the shard being written and what the allocator keeps.
    read.memory = options_.memory / 2;
    read.block_bytes =
        std::clamp<int64_t>(read.memory / (16 * (read.threads + 2)), 64 << 10, 1 << 20);
    read.skip_bad_rows = options_.skip_bad_rows;
    read.count_rows = options_.world_size > 1;
    read.on_bad_row = [this](const data::BadRow& bad) {
      log::warn("skipped: {}: line {}: {}", bad.path, bad.line, bad.what);
      progress_.ledger.drop(kMalformed, {bad.path, bad.line, bad.what});
    };
    read.on_scan = [this](const Place& place, int64_t rows, int64_t bytes_done) {
      scanned_ = true;
      note_begins(place, rows);
      if (options_.progress) options_.progress(0, bytes_done / 2, report_.bytes);
    };
    LORRY_ASSIGN(reader_, data::open_reader(files_, std::move(read)));
    log::info("import-dataset: memory at most {} MB", options_.memory >> 20);
    return {};
  }

  /// One process does it all: the rows are read once unless the guess at their types was wrong.
  Result<> import_all() {
    LORRY_ASSIGN(const bool resumed, resume());
    if (!resumed) {
      LORRY_TRY(reader_->begin());
      LORRY_TRY(forget_earlier());
    }
    LORRY_TRY(copy_rows());
    while (!reader_->is_settled()) {
      log::debug("{}: the types of later rows differ, so the shards are written again", dir_);
      LORRY_TRY(reader_->settle());
      writer_.reset();
      if (one_pass_) one_pass_->restart();
      skipping_ = false;
      progress_.shard_rows.clear();
      report_.rows = skip_ = 0;
      LORRY_TRY(options_.bucket->remove(progress_path()));
      LORRY_TRY(copy_rows());
    }
    return finish();
  }

  /// One of several processes: it reads the rows once to learn where shards begin and what their
  /// types are, then makes those that are its own. The one that finds all there writes info.json.
  Result<> import_part() {
    LORRY_TRY(reader_->scan());
    LORRY_TRY(forget_earlier());
    const auto shards = int64_t(begins_.size());
    for (int64_t shard = 0; shard < shards; ++shard) {
      const int64_t begin = shard * options_.shard_examples;
      progress_.shard_rows.push_back(std::min(options_.shard_examples, rows_scanned_ - begin));
    }
    report_.rows = 0;
    for (int64_t shard = options_.rank; shard < shards; shard += options_.world_size) {
      LORRY_TRY(copy_shard(shard));
    }
    report_.rows = rows_scanned_;
    report_.shards = shards;
    LORRY_ASSIGN(auto missing, missing_shards());
    OtherNodes others(options_, *claim_, dir_);
    while (options_.wait && !missing.empty()) {
      LORRY_ASSIGN(const auto mine, others.take_up(missing));
      for (const int64_t shard : mine) LORRY_TRY(copy_shard(shard));
      LORRY_ASSIGN(missing, missing_shards());
    }
    report_.rows = rows_scanned_;
    report_.missing = int64_t(missing.size());
    report_.complete = missing.empty();
    if (report_.complete) return finish();
    log::info("{}: {}", dir_, describe_missing(report_.missing, shards));
    return {};
  }

  Result<std::vector<int64_t>> missing_shards() {
    std::vector<int64_t> missing;
    LORRY_TRY(read_states(*options_.bucket, dir_, report_.shards,
                          [&](int64_t shard, std::optional<Json> state) -> Result<> {
                            if (!has_key(state, key(shard))) missing.push_back(shard);
                            return {};
                          }));
    return missing;
  }

  void note_begins(const Place& place, int64_t rows) {
    const int64_t before = std::exchange(rows_scanned_, rows_scanned_ + rows);
    while (int64_t(begins_.size()) * options_.shard_examples < rows_scanned_) {
      const int64_t skip = int64_t(begins_.size()) * options_.shard_examples - before;
      begins_.push_back(ShardBegin{place, skip});
    }
  }

  Result<bool> resume() {
    if (options_.fresh) return false;
    LORRY_ASSIGN(const bool there, options_.bucket->exists(progress_path()));
    if (!there) return false;
    LORRY_ASSIGN(const std::string text, options_.bucket->read(progress_path()));
    auto json = parse_json(text, progress_path());
    if (!json.ok() || !json->is_object() || json->value("inputs", Json()) != inputs_) return false;
    auto progress = ImportProgress::from_json(*json);
    if (!progress || !reader_->restore(progress->reader).ok()) return false;
    LORRY_TRY(reader_->seek(progress->place));
    progress_ = std::move(*progress);
    skip_ = progress_.skip;
    for (const int64_t rows : progress_.shard_rows) report_.rows += rows;
    log::info("{}: going on after {} whole shards, {} rows", dir_, progress_.shard_rows.size(),
              report_.rows);
    return true;
  }

  /// What another import left must not look complete. Its shards are replaced one by one.
  Result<> forget_earlier() {
    // One of the same inputs is of a process that ended while this one began.
    auto info = options_.bucket->read_info(dir_);
    const bool same = info.ok() && *info && (*info)->value("inputs", Json()) == inputs_;
    if (info.ok() && *info) progress_.imported_on = (*info)->value("imported_on", "");
    if (options_.fresh || !same)
      LORRY_TRY(options_.bucket->remove(store::join_path(dir_, "info.json")));
    return options_.bucket->remove(progress_path());
  }

  Result<> copy_rows() {
    while (true) {
      LORRY_TRY(check_cancelled());
      LORRY_ASSIGN(auto batch, reader_->next());
      if (!batch) break;
      LORRY_TRY(copy_batch(*batch));
      say_progress(batch->bytes_done);
    }
    // Rows are missing at the end of a shard whose reader has not settled.
    if (reader_->is_settled() && shard_is_open()) LORRY_TRY(finish_shard());
    return {};
  }

  void say_progress(int64_t bytes_done) const {
    if (!options_.progress) return;
    const int64_t done = scanned_ ? (report_.bytes + bytes_done) / 2 : bytes_done;
    options_.progress(report_.rows, done, report_.bytes);
  }

  Result<> copy_batch(const data::Batch& batch) {
    int64_t at = std::min(skip_, batch.rows->num_rows());
    skip_ -= at;
    while (at < batch.rows->num_rows()) {
      if (!shard_is_open()) LORRY_TRY(open_shard(int64_t(progress_.shard_rows.size())));
      const int64_t take = std::min(batch.rows->num_rows() - at, options_.shard_examples - rows_);
      LORRY_TRY(write(*batch.rows->Slice(at, take)));
      at += take;
      if (rows_ < options_.shard_examples) continue;
      LORRY_TRY(finish_shard());
      progress_.place = batch.begin;
      progress_.skip = at;
      progress_.reader = reader_->state();
      LORRY_TRY(options_.bucket->write(progress_path(), dump_json(progress_.to_json(inputs_), 1)));
    }
    return {};
  }

  /// The rows of one shard, from where the scan found its begin.
  Result<> copy_shard(int64_t shard) {
    LORRY_TRY(open_shard(shard));
    if (std::exchange(skipping_, false)) return {};
    LORRY_TRY(reader_->seek(begins_[size_t(shard)].place));
    int64_t skip = begins_[size_t(shard)].skip;
    const int64_t rows = progress_.shard_rows[size_t(shard)];
    while (rows_ < rows) {
      LORRY_TRY(check_cancelled());
      LORRY_ASSIGN(auto batch, reader_->next());
      if (!batch)
        return corrupt_data(fmt::format("{}: the source changed while it was read", dir_));
      const int64_t at = std::min(skip, batch->rows->num_rows());
      skip -= at;
      if (at == batch->rows->num_rows()) continue;
      const int64_t take = std::min(batch->rows->num_rows() - at, rows - rows_);
      LORRY_TRY(write(*batch->rows->Slice(at, take)));
      say_progress(batch->bytes_done);
    }
    return finish_writer();
  }

  /// Decides a shard's bytes: the files, the options, the types of all rows.
  std::string key(int64_t shard) const {
    Sha256 digest;
    digest.update(dump_json(inputs_));
    digest.update(reader_->schema()->ToString(/*show_metadata=*/false));
    digest.update(fmt::format("\nshard {}", shard));
    return digest.hex();
  }

  bool shard_is_open() const { return writer_ || skipping_; }

  Result<> open_shard(int64_t shard) {
    rows_ = 0;
    const std::string dir = store::shard_dir(dir_, shard);
    const std::string mine = key(shard);
    if (!options_.fresh) {
      LORRY_ASSIGN(const auto state, data::read_shard_state(*options_.bucket, dir));
      skipping_ = has_key(state, mine);
      if (skipping_) return {};
    }
    data::ShardWriter::Options written;
    if (one_pass_) {
      one_pass_->begin_shard(shard, mine);
      written.on_batch = [this](auto batch) { one_pass_->add(std::move(batch)); };
    }
    LORRY_ASSIGN(writer_, data::ShardWriter::create(options_.bucket, dir, reader_->schema(),
                                                    std::move(written)));
    writer_->set_state(Json{{"key", mine}});
    return {};
  }

  Result<> write(const arrow::RecordBatch& rows) {
    rows_ += rows.num_rows();
    report_.rows += rows.num_rows();
    return writer_ ? writer_->write(rows) : Result<>();
  }

  Result<> finish_writer() {
    skipping_ = false;
    if (!writer_) return {};
    writer_->set_state(Json{{"rows", rows_}});
    if (one_pass_) {
      LORRY_TRY(writer_->flush());
      one_pass_->finish_shard();
    }
    LORRY_TRY(writer_->finish());
    writer_.reset();
    return {};
  }

  Result<> finish_shard() {
    LORRY_TRY(finish_writer());
    progress_.shard_rows.push_back(rows_);
    return {};
  }

  Result<> finish() {
    if (rows_in_all() == 0) return data::no_rows(files_);
    report_.rows = rows_in_all();
    Ledger& ledger = progress_.ledger;
    ledger.keep(report_.rows);
    LORRY_TRY(ledger.check(options_.max_dropped, "import-dataset", ledger.read()));
    report_.shards = int64_t(progress_.shard_rows.size());
    report_.dropped = ledger.dropped();
    LORRY_TRY(data::remove_shards(*options_.bucket, dir_, report_.shards));
    LORRY_TRY(ledger.write(*options_.bucket, dir_));
    Json info;
    LORRY_ASSIGN(info["imported_on"], first_day());
    info["count"] = report_.shards - 1;
    info["rows"] = report_.rows;
    info["shard_rows"] = progress_.shard_rows;
    info["dropped"] = report_.dropped;
    info["dropped_rows"] = dropped_rows();
    info["ledger"] = ledger.summary();
    info["bytes"] = report_.bytes;
    info["columns"] = data::features_from_schema(*reader_->schema());
    info["inputs"] = inputs_;
    info["lorry_version"] = kVersion;
    LORRY_TRY(claim_->confirm());
    LORRY_TRY(options_.bucket->write_info(dir_, info));
    report_.digest = digest_of_info(info);
    return options_.bucket->remove(progress_path());
  }

  /// The day on which the data set was first imported, in UTC: templates that write the day write
  /// this one, however often the data is imported again.
  Result<std::string> first_day() const {
    LORRY_ASSIGN(const auto other, options_.bucket->read_info(dir_));  // another node's
    const std::string known =
        other ? other->value("imported_on", progress_.imported_on) : progress_.imported_on;
    if (!known.empty()) return known;
    const std::time_t now = std::time(nullptr);
    std::tm utc{};
    ::gmtime_r(&now, &utc);
    std::string day(16, '\0');
    day.resize(std::strftime(day.data(), day.size(), "%Y-%m-%d", &utc));
    return day;
  }

  /// A node has read some of the rows again, to make its shards.
  int64_t rows_in_all() const { return options_.world_size > 1 ? rows_scanned_ : report_.rows; }

  Json dropped_rows() const {
    Json rows = Json::array();
    const auto malformed = progress_.ledger.reasons().find(kMalformed);
    if (malformed == progress_.ledger.reasons().end()) return rows;
    for (const auto& row : malformed->second.named) {
      rows.push_back(fmt::format("{}: line {}: {}", row.place, row.row, row.detail));
    }
    return rows;
  }

  ImportDatasetOptions options_;  ///< `bucket` becomes the claim's
  std::string dir_;
  std::unique_ptr<store::Claim> claim_;
  std::vector<data::SourceFile> files_;
  Json inputs_;
  std::unique_ptr<data::Reader> reader_;
  std::unique_ptr<OnePass> one_pass_;  ///< null: standardized/ is left to a pass of its own
  std::unique_ptr<data::ShardWriter> writer_;
  bool skipping_ = false;  ///< the shard at hand is there already
  int64_t rows_ = 0;       ///< of the shard at hand
  ImportProgress progress_;
  int64_t skip_ = 0;  ///< rows of the next batches that an earlier run wrote
  bool scanned_ = false;
  std::vector<ShardBegin> begins_;
  int64_t rows_scanned_ = 0;
  ImportDatasetReport report_;
};

Result<> check(const ImportDatasetOptions& options) {
  if (options.sources.empty()) {
    return usage_error("name a file, directory, URL or Hub data set to import");
  }
  if (options.shard_examples < 1) return usage_error("--shard-examples must be at least 1");
  if (options.skip_bad_rows < 0) return usage_error("--skip-bad-rows must not be negative");
  return check(static_cast<const ShardWorkOptions&>(options));
}

Result<StandardizeReport> standardize_after(const ImportDatasetOptions& options,
                                            const std::string& dataset, const std::string& raw) {
  StandardizeOptions next;
  static_cast<ShardWorkOptions&>(next) = options;
  static_cast<data::RowOptions&>(next) = options;
  if (!options.wait) {
    // Nodes that came before have ended: the one that finds the raw shards whole goes on alone.
    next.rank = 0;
    next.world_size = 1;
  }
  next.expected_input = raw;
  next.bucket = options.bucket;
  next.dataset = dataset;
  next.progress = options.standardize_progress;
  return standardize(next);
}

/// How often an import is begun again because another process has put other rows in its place.
constexpr int kAttempts = 10;

Error replaced_again(const std::string& dir) {
  return unavailable(
      fmt::format("{}: other processes replaced it {} times; give this data set a name of its own "
                  "with --dataset",
                  dir, kAttempts));
}

}  // namespace

Result<ImportDatasetReport> import_dataset(const ImportDatasetOptions& options) {
  LORRY_TRY(check(options));
  const auto start = std::chrono::steady_clock::now();
  const std::string dataset =
      options.dataset.empty() ? sources::default_dataset_name(options.sources[0]) : options.dataset;
  if (dataset.find('@') != std::string::npos) {
    return usage_error(
        fmt::format("'{}' cannot be a data set's name: @ stands before a run's name; give another "
                    "with --dataset",
                    dataset));
  }
  for (int attempt = 1;; ++attempt) {
    LORRY_ASSIGN(auto report, Import(options, dataset).run());
    report.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!options.standardize || !report.complete) return report;
    LORRY_ASSIGN(report.standardized, standardize_after(options, dataset, report.digest));
    if (!report.standardized.input_changed) return report;
    if (attempt == kAttempts) return replaced_again(store::raw_dir(dataset));
    log::info("{}: another process has imported other rows meanwhile; importing again",
              store::raw_dir(dataset));
  }
}

}  // namespace lorry::stages

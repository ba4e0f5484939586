#include "pipeline/standardize.h"

#include <arrow/array.h>
#include <arrow/builder.h>
#include <arrow/record_batch.h>
#include <arrow/table_builder.h>
#include <arrow/type.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <deque>
#include <future>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>  // hardware_concurrency

#include "base/cancel.h"
#include "base/digest.h"
#include "base/json.h"
#include "base/log.h"
#include "base/version.h"
#include "data/conversations.h"
#include "data/shard.h"
#include "store/layout.h"

namespace lorry::pipeline {
namespace {

using data::StandardRow;
using data::Turn;

/// Rows that are looked at to recognise the format.
constexpr int64_t kSampleRows = 100;
constexpr size_t kNamedBadRows = 1000;
constexpr size_t kNamedPlaceholders = 10;

/// The optional parts of a turn that some row of the data set has, in the order of the columns.
struct Extras {
  bool tool_calls = false, tool_call_id = false, name = false, reasoning_content = false;
  bool tools = false;

  void add(const StandardRow& row) {
    tools |= row.tools.has_value();
    for (const Turn& turn : row.turns) {
      tool_calls |= turn.tool_calls.has_value();
      tool_call_id |= turn.tool_call_id.has_value();
      name |= turn.name.has_value();
      reasoning_content |= turn.reasoning_content.has_value();
    }
  }
  void add(const Extras& other) {
    tools |= other.tools;
    tool_calls |= other.tool_calls;
    tool_call_id |= other.tool_call_id;
    name |= other.name;
    reasoning_content |= other.reasoning_content;
  }
};

std::shared_ptr<arrow::Schema> standard_schema(data::RowFormat format, const Extras& extras) {
  if (format == data::RowFormat::kText) return arrow::schema({arrow::field("text", arrow::utf8())});
  arrow::FieldVector turn = {arrow::field("role", arrow::utf8()),
                             arrow::field("content", arrow::utf8())};
  if (extras.reasoning_content) turn.push_back(arrow::field("reasoning_content", arrow::utf8()));
  if (extras.tool_calls) turn.push_back(arrow::field("tool_calls", arrow::utf8()));
  if (extras.tool_call_id) turn.push_back(arrow::field("tool_call_id", arrow::utf8()));
  if (extras.name) turn.push_back(arrow::field("name", arrow::utf8()));
  arrow::FieldVector fields = {arrow::field("conversations", arrow::list(arrow::struct_(turn)))};
  if (extras.tools) fields.push_back(arrow::field("tools", arrow::utf8()));
  return arrow::schema(std::move(fields));
}

/// Standard rows into one record batch.
class BatchBuilder {
 public:
  BatchBuilder(std::shared_ptr<arrow::Schema> schema, const Extras& extras)
      : schema_(std::move(schema)), extras_(extras) {}

  arrow::Result<std::shared_ptr<arrow::RecordBatch>> build(const std::vector<StandardRow>& rows) {
    ARROW_ASSIGN_OR_RAISE(auto builder, arrow::RecordBatchBuilder::Make(schema_, pool()));
    const bool is_text = schema_->field(0)->name() == "text";
    for (const auto& row : rows) {
      if (is_text) {
        ARROW_RETURN_NOT_OK(builder->GetFieldAs<arrow::StringBuilder>(0)->Append(row.text));
        continue;
      }
      ARROW_RETURN_NOT_OK(append_turns(*builder->GetFieldAs<arrow::ListBuilder>(0), row.turns));
      if (extras_.tools) {
        ARROW_RETURN_NOT_OK(append(*builder->GetField(1), row.tools));
      }
    }
    return builder->Flush();
  }

 private:
  static arrow::MemoryPool* pool() { return arrow::default_memory_pool(); }

  arrow::Status append_turns(arrow::ListBuilder& list, const std::vector<Turn>& turns) {
    ARROW_RETURN_NOT_OK(list.Append());
    auto& fields = static_cast<arrow::StructBuilder&>(*list.value_builder());
    for (const Turn& turn : turns) {
      ARROW_RETURN_NOT_OK(fields.Append());
      int f = 0;
      ARROW_RETURN_NOT_OK(append(*fields.field_builder(f++), turn.role));
      ARROW_RETURN_NOT_OK(append(*fields.field_builder(f++), turn.content));
      if (extras_.reasoning_content) {
        ARROW_RETURN_NOT_OK(append(*fields.field_builder(f++), turn.reasoning_content));
      }
      if (extras_.tool_calls) {
        ARROW_RETURN_NOT_OK(append(*fields.field_builder(f++), turn.tool_calls));
      }
      if (extras_.tool_call_id) {
        ARROW_RETURN_NOT_OK(append(*fields.field_builder(f++), turn.tool_call_id));
      }
      if (extras_.name) ARROW_RETURN_NOT_OK(append(*fields.field_builder(f++), turn.name));
    }
    return arrow::Status::OK();
  }

  static arrow::Status append(arrow::ArrayBuilder& builder,
                              const std::optional<std::string>& text) {
    auto& strings = static_cast<arrow::StringBuilder&>(builder);
    return text ? strings.Append(*text) : strings.AppendNull();
  }

  std::shared_ptr<arrow::Schema> schema_;
  const Extras& extras_;
};

/// What became of the rows so far; kept in progress.json after each shard.
struct Counts {
  int64_t rows_in = 0, rows = 0, bad_rows = 0;
  std::map<std::string, int64_t> dropped;
  Json bad = Json::array();
  std::vector<int64_t> shard_rows;
  std::set<std::string> filled;  ///< placeholders that some row held

  Json to_json() const {
    Json json;
    json["filled"] = filled;
    json["rows_in"] = rows_in;
    json["rows"] = rows;
    json["bad_rows"] = bad_rows;
    json["dropped"] = dropped;
    json["bad"] = bad;
    json["shard_rows"] = shard_rows;
    return json;
  }
  static std::optional<Counts> from_json(const Json& json) {
    try {
      Counts counts;
      counts.rows_in = json.at("rows_in").get<int64_t>();
      counts.rows = json.at("rows").get<int64_t>();
      counts.bad_rows = json.at("bad_rows").get<int64_t>();
      counts.dropped = json.at("dropped").get<std::map<std::string, int64_t>>();
      counts.bad = json.at("bad");
      counts.shard_rows = json.at("shard_rows").get<std::vector<int64_t>>();
      counts.filled = json.at("filled").get<std::set<std::string>>();
      return counts;
    } catch (const nlohmann::json::exception&) {
      return std::nullopt;
    }
  }
};

/// One raw batch, standardized.
struct Piece {
  std::vector<StandardRow> kept;
  std::map<std::string, int64_t> dropped;
  std::vector<std::pair<int64_t, std::string>> bad;  ///< row of the shard, what
  Extras extras;
  std::set<std::string> unfilled, filled;
  std::shared_ptr<arrow::RecordBatch> batch;
  std::string failure;  ///< of building the batch
};

class Standardization {
 public:
  explicit Standardization(const StandardizeOptions& options)
      : options_(options),
        bucket_(*options.bucket),
        raw_(store::raw_dir(options.dataset)),
        dir_(store::standardized_dir(options.dataset)),
        threads_(options.threads > 0 ? size_t(options.threads)
                                     : std::max(1u, std::thread::hardware_concurrency())) {}

  Result<StandardizeReport> run() {
    LORRY_TRY(read_raw_info());
    LORRY_ASSIGN(const bool done, is_up_to_date());
    if (done) return report_;
    LORRY_TRY(recognise());
    LORRY_TRY(learn_extras());
    schema_ = standard_schema(rules_.format, extras_);
    LORRY_TRY(begin());
    if (!unused_.empty()) {
      log::info("{}: as {}, without the columns {}", dir_, report_.format,
                fmt::join(unused_, ", "));
    }
    for (int64_t shard = int64_t(counts_.shard_rows.size()); shard < shards_; ++shard) {
      LORRY_TRY(write_shard(shard));
    }
    LORRY_TRY(finish());
    return report_;
  }

 private:
  std::string progress_path() const { return store::join_path(dir_, "progress.json"); }

  Result<> read_raw_info() {
    LORRY_ASSIGN(auto info, bucket_.read_info(raw_));
    if (!info) {
      return not_found(
          fmt::format("{}: not imported, or not to the end; run lorry import-dataset", raw_));
    }
    shards_ = info->value("count", int64_t(-1)) + 1;
    rows_total_ = info->value("rows", int64_t(0));
    inputs_["lorry_version"] = kVersion;
    inputs_["raw"] = sha256_hex(dump_json(*info));
    inputs_["options"] = Json{{"format", options_.format},
                              {"columns", options_.columns},
                              {"set", options_.placeholders},
                              {"skip_bad_rows", options_.skip_bad_rows}};
    return {};
  }

  Result<bool> is_up_to_date() {
    if (options_.fresh) return false;
    LORRY_ASSIGN(auto info, bucket_.read_info(dir_));
    if (!info || info->value("inputs", Json()) != inputs_) return false;
    LORRY_TRY(bucket_.remove(progress_path()));
    report_.rows_in = info->value("rows_in", int64_t(0));
    report_.rows = info->value("rows", int64_t(0));
    report_.shards = info->value("count", int64_t(-1)) + 1;
    report_.format = info->value("format", "");
    report_.dropped = info->value("dropped", std::map<std::string, int64_t>());
    report_.up_to_date = true;
    return true;
  }

  Result<std::shared_ptr<data::ShardReader>> open_raw(int64_t shard) const {
    return data::ShardReader::open(bucket_, store::shard_dir(raw_, shard));
  }

  Result<> recognise() {
    LORRY_ASSIGN(auto shard, open_raw(0));
    std::vector<Json> sample;
    for (int64_t row = 0; row < std::min(shard->rows(), kSampleRows); ++row) {
      const auto [batch, at] = shard->locate(row);
      sample.push_back(data::row_to_json(*batch, at));
    }
    LORRY_ASSIGN(rules_, data::find_rules(*shard->schema(), sample, options_.format,
                                          options_.columns, options_.placeholders));
    report_.format = data::row_format_name(rules_.format);
    unused_ = data::unused_columns(*shard->schema(), sample, rules_);
    return {};
  }

  /// Standardizes batch after batch of a raw shard, `threads_` at a time, and hands the pieces on
  /// in order.
  template <typename Work, typename Use>
  Result<> each_piece(const data::ShardReader& shard, Work work, Use use) {
    std::deque<std::future<Piece>> pieces;
    for (int64_t b = 0; b < shard.num_batches() || !pieces.empty();) {
      if (b < shard.num_batches() && pieces.size() <= threads_) {
        pieces.push_back(std::async(std::launch::async, [this, &shard, &work, b] {
          return work(*shard.batch(b), shard.batch_start(b));
        }));
        ++b;
        continue;
      }
      LORRY_TRY(check_cancelled());
      Piece piece = pieces.front().get();
      pieces.pop_front();
      LORRY_TRY(use(piece));
    }
    return {};
  }

  Piece standardize(const arrow::RecordBatch& batch, int64_t start) const {
    Piece piece;
    for (int64_t row = 0; row < batch.num_rows(); ++row) {
      auto done = data::standardize_row(rules_, data::row_to_json(batch, row));
      if (!done.ok()) {
        piece.bad.emplace_back(start + row, done.error().message);
        continue;
      }
      piece.unfilled.merge(done->placeholders);
      piece.filled.merge(done->filled);
      if (!done->dropped.empty()) {
        ++piece.dropped[done->dropped];
        continue;
      }
      piece.extras.add(*done);
      piece.kept.push_back(std::move(*done));
    }
    return piece;
  }

  /// Whether any row can have more than role and content. Where the raw columns allow for it, all
  /// rows are looked at: the schema must not depend on where a shard was cut.
  Result<> learn_extras() {
    const bool plain = rules_.format == data::RowFormat::kText ||
                       (rules_.tools.empty() && (rules_.format == data::RowFormat::kAlpaca));
    if (plain) return {};
    for (int64_t s = 0; s < shards_; ++s) {
      LORRY_ASSIGN(auto shard, open_raw(s));
      LORRY_TRY(each_piece(
          *shard,
          [this](const arrow::RecordBatch& batch, int64_t start) {
            Piece piece = standardize(batch, start);
            piece.kept.clear();
            return piece;
          },
          [this, s](Piece& piece) -> Result<> {
            extras_.add(piece.extras);
            scanned_bad_ += int64_t(piece.bad.size());
            // Fail before anything is written; the writing pass reports each.
            if (scanned_bad_ > options_.skip_bad_rows) return bad_row(s, piece.bad.front());
            return {};
          }));
    }
    return {};
  }

  Error bad_row(int64_t shard, const std::pair<int64_t, std::string>& bad) const {
    return invalid_input(
        fmt::format("{}: row {}: {}; --skip-bad-rows N leaves up to N such rows out",
                    store::shard_dir(raw_, shard), bad.first, bad.second));
  }

  Result<> begin() {
    if (!options_.fresh) {
      LORRY_ASSIGN(const bool there, bucket_.exists(progress_path()));
      if (there) {
        LORRY_ASSIGN(const std::string text, bucket_.read(progress_path()));
        const auto json = parse_json(text, progress_path());
        if (json.ok() && json->value("inputs", Json()) == inputs_) {
          if (auto counts = Counts::from_json(*json)) {
            counts_ = std::move(*counts);
            log::info("{}: going on after {} whole shards", dir_, counts_.shard_rows.size());
            return {};
          }
        }
      }
    }
    LORRY_TRY(bucket_.remove(store::join_path(dir_, "info.json")));
    LORRY_TRY(bucket_.remove(progress_path()));
    return data::remove_shards(bucket_, dir_, 0);
  }

  Result<> write_shard(int64_t s) {
    LORRY_ASSIGN(auto shard, open_raw(s));
    LORRY_ASSIGN(auto writer,
                 data::ShardWriter::create(options_.bucket, store::shard_dir(dir_, s), schema_));
    LORRY_TRY(each_piece(
        *shard,
        [this](const arrow::RecordBatch& batch, int64_t start) {
          Piece piece = standardize(batch, start);
          auto built = BatchBuilder(schema_, extras_).build(piece.kept);
          if (built.ok()) {
            piece.batch = *built;
          } else {
            piece.failure = built.status().message();
          }
          return piece;
        },
        [&](Piece& piece) -> Result<> {
          LORRY_TRY(account(piece, s));
          if (!piece.batch) return unavailable(fmt::format("{}: {}", dir_, piece.failure));
          return writer->write(*piece.batch);
        }));
    LORRY_TRY(writer->finish());
    counts_.rows += writer->rows();
    counts_.shard_rows.push_back(writer->rows());
    if (s + 1 == shards_) return {};
    Json progress = counts_.to_json();
    progress["inputs"] = inputs_;
    return bucket_.write(progress_path(), dump_json(progress, 1));
  }

  Result<> account(const Piece& piece, int64_t shard) {
    counts_.rows_in += int64_t(piece.kept.size() + piece.bad.size());
    for (const auto& [reason, n] : piece.dropped) {
      counts_.dropped[reason] += n;
      counts_.rows_in += n;
    }
    for (const auto& bad : piece.bad) {
      if (++counts_.bad_rows > options_.skip_bad_rows) return bad_row(shard, bad);
      const std::string message =
          fmt::format("{}: row {}: {}", store::shard_dir(raw_, shard), bad.first, bad.second);
      log::warn("skipped: {}", message);
      if (counts_.bad.size() < kNamedBadRows) counts_.bad.push_back(message);
    }
    warn_of_placeholders(piece);
    if (options_.progress) options_.progress(counts_.rows_in, rows_total_);
    return {};
  }

  void warn_of_placeholders(const Piece& piece) {
    counts_.filled.insert(piece.filled.begin(), piece.filled.end());
    for (const auto& name : piece.unfilled) {
      if (warned_.size() >= kNamedPlaceholders || !warned_.insert(name).second) continue;
      log::warn("the rows hold {{{{{}}}}}, which stays as it is; --set {}=VALUE fills it", name,
                name);
    }
  }

  Result<> finish() {
    for (const auto& [name, value] : options_.placeholders) {
      if (!counts_.filled.contains(name))
        log::warn("--set {}: no row holds {{{{{}}}}}", name, name);
    }
    if (counts_.bad_rows > 0) counts_.dropped["malformed"] = counts_.bad_rows;
    if (counts_.rows == 0) {
      std::string reasons;
      for (const auto& [reason, n] : counts_.dropped) {
        reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : ", ", reason, n);
      }
      return invalid_input(fmt::format("{}: no row is left to train on ({})", dir_, reasons));
    }
    Json info;
    info["count"] = shards_ - 1;
    info["rows"] = counts_.rows;
    info["rows_in"] = counts_.rows_in;
    info["shard_rows"] = counts_.shard_rows;
    info["dropped"] = counts_.dropped;
    info["dropped_rows"] = counts_.bad;
    info["format"] = report_.format;
    info["dropped_columns"] = unused_;
    info["columns"] = data::features_from_schema(*schema_);
    info["inputs"] = inputs_;
    info["lorry_version"] = kVersion;
    LORRY_TRY(bucket_.write_info(dir_, info));
    report_.rows_in = counts_.rows_in;
    report_.rows = counts_.rows;
    report_.shards = shards_;
    report_.dropped = counts_.dropped;
    return bucket_.remove(progress_path());
  }

  const StandardizeOptions& options_;
  store::Bucket& bucket_;
  std::string raw_, dir_;
  size_t threads_;
  int64_t shards_ = 0, rows_total_ = 0;
  Json inputs_;
  data::RowRules rules_;
  std::vector<std::string> unused_;
  Extras extras_;
  int64_t scanned_bad_ = 0;
  std::shared_ptr<arrow::Schema> schema_;
  Counts counts_;
  std::set<std::string> warned_;
  StandardizeReport report_;
};

}  // namespace

Result<StandardizeReport> standardize(const StandardizeOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  LORRY_ASSIGN(auto report, Standardization(options).run());
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace lorry::pipeline

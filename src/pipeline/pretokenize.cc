#include "pipeline/pretokenize.h"

#include <arrow/api.h>
#include <arrow/util/byte_size.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>  // workers

#include "base/cancel.h"
#include "base/digest.h"
#include "base/json.h"
#include "base/log.h"
#include "base/version.h"
#include "data/shard.h"
#include "data/token_shard.h"
#include "pipeline/messages.h"
#include "store/layout.h"

namespace lorry::pipeline {
namespace {

/// Raised when the same inputs come to give other bytes.
constexpr int kFormat = 1;
/// Rows and bytes of input that are encoded between two writes; bounds memory.
constexpr int64_t kWindowRows = 2048;
constexpr int64_t kWindowBytes = 16 << 20;
constexpr int64_t kLedgerRows = 1000;  // dropped rows that info.json names one by one
constexpr int64_t kOverLengths[] = {512, 1024, 2048, 4096, 8192, 16384, 32768};

/// What is counted about a shard, as JSON in info.json and in the journal of a run under way.
struct Counts {
  int64_t rows = 0, tokens = 0, target_tokens = 0, rows_without_target = 0, longest = 0;
  int64_t over[std::size(kOverLengths)] = {};
  int64_t dropped = 0;
  Json dropped_rows = Json::array();

  void count(const text::EncodedExample& example) {
    const auto length = static_cast<int64_t>(example.input_ids.size());
    const auto targets =
        std::count(example.assistant_masks.begin(), example.assistant_masks.end(), 1);
    ++rows;
    tokens += length;
    target_tokens += targets;
    rows_without_target += targets == 0;
    longest = std::max(longest, length);
    for (size_t i = 0; i < std::size(kOverLengths); ++i) over[i] += length > kOverLengths[i];
  }

  void drop(const std::string& place, const std::string& reason) {
    ++dropped;
    if (static_cast<int64_t>(dropped_rows.size()) < kLedgerRows)
      dropped_rows.push_back({{"row", place}, {"reason", reason}});
  }

  void add(const Counts& other) {
    rows += other.rows, tokens += other.tokens, target_tokens += other.target_tokens;
    rows_without_target += other.rows_without_target, dropped += other.dropped;
    longest = std::max(longest, other.longest);
    for (size_t i = 0; i < std::size(kOverLengths); ++i) over[i] += other.over[i];
    for (const auto& row : other.dropped_rows)
      if (static_cast<int64_t>(dropped_rows.size()) < kLedgerRows) dropped_rows.push_back(row);
  }

  Json to_json() const {
    Json longer = Json::object();
    for (size_t i = 0; i < std::size(kOverLengths); ++i)
      longer[std::to_string(kOverLengths[i])] = over[i];
    return {{"rows", rows},
            {"tokens", tokens},
            {"target_tokens", target_tokens},
            {"rows_without_target", rows_without_target},
            {"longest", longest},
            {"rows_longer_than", longer},
            {"dropped", dropped},
            {"dropped_rows", dropped_rows}};
  }

  static Counts from_json(const Json& json) {
    Counts counts;
    counts.rows = json.value("rows", int64_t{0});
    counts.tokens = json.value("tokens", int64_t{0});
    counts.target_tokens = json.value("target_tokens", int64_t{0});
    counts.rows_without_target = json.value("rows_without_target", int64_t{0});
    counts.longest = json.value("longest", int64_t{0});
    counts.dropped = json.value("dropped", int64_t{0});
    const Json longer = json.value("rows_longer_than", Json::object());
    for (size_t i = 0; i < std::size(kOverLengths); ++i)
      counts.over[i] = longer.value(std::to_string(kOverLengths[i]), int64_t{0});
    counts.dropped_rows = json.value("dropped_rows", Json::array());
    return counts;
  }
};

/// One row on its way: encoded by a worker, counted and written in order.
struct Slot {
  Result<text::EncodedExample> encoded = text::EncodedExample{};
};

Slot encode_row(const text::Chat& chat, const arrow::RecordBatch& batch, int64_t row) {
  auto example = example_from_row(data::row_to_json(batch, row));
  if (!example.ok()) return {std::move(example).error()};
  auto encoded = encode(chat, *example);
  if (encoded.ok() && encoded->input_ids.empty()) return {invalid_input("it has no tokens")};
  return {std::move(encoded)};
}

/// Rows [begin, begin + slots.size()) of the batch, on all threads.
void encode_window(const text::Chat& chat, const arrow::RecordBatch& batch, int64_t begin,
                   int threads, std::vector<Slot>& slots) {
  constexpr size_t kTake = 16;  // rows a worker takes at a time
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (;;) {
      const size_t from = next.fetch_add(kTake);
      if (from >= slots.size() || cancel_requested()) return;
      const size_t to = std::min(from + kTake, slots.size());
      for (size_t i = from; i < to; ++i)
        slots[i] = encode_row(chat, batch, begin + static_cast<int64_t>(i));
    }
  };
  std::vector<std::jthread> workers;
  const int wanted = std::min<int>(threads, static_cast<int>((slots.size() + kTake - 1) / kTake));
  for (int i = 1; i < wanted; ++i) workers.emplace_back(work);
  work();
}

template <typename T, typename ArrowType>
std::shared_ptr<arrow::Array> list_column(const std::shared_ptr<arrow::DataType>& type,
                                          const std::vector<const text::EncodedExample*>& rows,
                                          const std::vector<T> text::EncodedExample::*field) {
  std::vector<int32_t> offsets = {0};
  std::vector<T> values;
  for (const auto* row : rows) {
    values.insert(values.end(), (row->*field).begin(), (row->*field).end());
    offsets.push_back(static_cast<int32_t>(values.size()));
  }
  const auto length = static_cast<int64_t>(values.size());
  auto flat = std::make_shared<arrow::NumericArray<ArrowType>>(
      length, arrow::Buffer::FromVector(std::move(values)));
  return std::make_shared<arrow::ListArray>(type, static_cast<int64_t>(rows.size()),
                                            arrow::Buffer::FromVector(std::move(offsets)), flat);
}

std::shared_ptr<arrow::RecordBatch> make_batch(
    const std::shared_ptr<arrow::Schema>& schema,
    const std::vector<const text::EncodedExample*>& rows) {
  std::vector<std::shared_ptr<arrow::Array>> columns = {
      list_column<int32_t, arrow::Int32Type>(schema->field(0)->type(), rows,
                                             &text::EncodedExample::input_ids),
      list_column<int8_t, arrow::Int8Type>(schema->field(1)->type(), rows,
                                           &text::EncodedExample::assistant_masks)};
  if (schema->num_fields() > 2) {
    std::vector<int32_t> offsets = {0};
    std::string bytes;
    for (const auto* row : rows) {
      bytes += row->text;
      offsets.push_back(static_cast<int32_t>(bytes.size()));
    }
    columns.push_back(std::make_shared<arrow::StringArray>(
        static_cast<int64_t>(rows.size()), arrow::Buffer::FromVector(std::move(offsets)),
        arrow::Buffer::FromString(std::move(bytes))));
  }
  return arrow::RecordBatch::Make(schema, static_cast<int64_t>(rows.size()), std::move(columns));
}

/// The columns that are encoded, so that no other is converted.
Result<std::shared_ptr<arrow::RecordBatch>> needed_columns(
    const std::shared_ptr<arrow::RecordBatch>& batch) {
  std::vector<int> keep;
  const bool chat = batch->schema()->GetFieldIndex("conversations") >= 0;
  for (const char* name : {"conversations", "tools", "text"}) {
    const int i = batch->schema()->GetFieldIndex(name);
    if (i >= 0 && (chat || std::string_view(name) == "text")) keep.push_back(i);
  }
  auto selected = batch->SelectColumns(keep);
  if (!selected.ok()) return corrupt_data(selected.status().ToString());
  return *std::move(selected);
}

int64_t window_rows(const arrow::RecordBatch& batch) {
  const auto bytes = arrow::util::ReferencedBufferSize(batch);
  if (!bytes.ok() || batch.num_rows() == 0 || *bytes <= 0) return 64;
  const int64_t per_row = *bytes / batch.num_rows() + 1;
  return std::clamp<int64_t>(kWindowBytes / per_row, 16, kWindowRows);
}

/// The stage at work on one model and data set.
class Stage {
 public:
  Stage(const PretokenizeOptions& options, std::shared_ptr<const text::Chat> chat,
        std::string inputs)
      : options_(options),
        chat_(std::move(chat)),
        inputs_(std::move(inputs)),
        source_(store::standardized_dir(options.dataset)),
        target_(store::model_ready_dir(options.model, options.dataset)),
        journal_(target_ + "/progress.json"),
        schema_(data::token_schema(options.with_text)),
        threads_(options.threads > 0 ? options.threads
                                     : static_cast<int>(std::thread::hardware_concurrency())) {}

  /// Encodes shards 0 to `last`; `rows_total` for the progress line.
  Result<std::vector<Counts>> run(int64_t last, int64_t rows_total) {
    rows_total_ = rows_total;
    LORRY_TRY(resume(last));
    for (auto shard = static_cast<int64_t>(shards_.size()); shard <= last; ++shard) {
      LORRY_ASSIGN(auto counts, encode_shard(shard));
      shards_.push_back(std::move(counts));
      LORRY_TRY(write_journal());
    }
    return shards_;
  }

  /// After info.json is there: the journal has served.
  Result<> forget_journal() { return options_.bucket->remove(journal_); }

 private:
  /// Keeps the whole shards of an interrupted run with the same inputs, removes all else.
  Result<> resume(int64_t last) {
    LORRY_TRY(options_.bucket->remove(target_ + "/info.json"));
    LORRY_ASSIGN(const bool begun, options_.bucket->exists(journal_));
    if (begun && !options_.fresh) {
      LORRY_ASSIGN(const auto text, options_.bucket->read(journal_));
      const auto journal = parse_json(text, journal_);
      if (journal.ok() && journal->is_object() && journal->value("inputs", "") == inputs_)
        for (const auto& counts : journal->value("shards", Json::array()))
          shards_.push_back(Counts::from_json(counts));
    }
    LORRY_TRY(keep_whole_shards());
    if (shards_.empty()) LORRY_TRY(options_.bucket->remove(journal_));
    for (const auto& counts : shards_) {
      rows_done_ += counts.rows + counts.dropped;
      dropped_ += counts.dropped;
    }
    if (!shards_.empty())
      log::info("pretokenize: going on after shard {} of {}", shards_.size() - 1, last);
    if (options_.progress) options_.progress(rows_done_, rows_total_);
    return data::remove_shards(*options_.bucket, target_, static_cast<int64_t>(shards_.size()));
  }

  /// A shard that the journal names and that is gone, or not whole, ends what can be kept.
  Result<> keep_whole_shards() {
    for (size_t i = 0; i < shards_.size(); ++i) {
      const auto state = store::shard_dir(target_, static_cast<int64_t>(i)) + "/state.json";
      LORRY_ASSIGN(const bool whole, options_.bucket->exists(state));
      if (whole) continue;
      shards_.resize(i);
      break;
    }
    return {};
  }

  Result<> write_journal() {
    Json done = Json::array();
    for (const auto& counts : shards_) done.push_back(counts.to_json());
    return options_.bucket->write(journal_, dump_json(Json{{"inputs", inputs_}, {"shards", done}}));
  }

  Result<Counts> encode_shard(int64_t shard) {
    const std::string from = store::shard_dir(source_, shard);
    LORRY_ASSIGN(const auto reader, data::ShardReader::open(*options_.bucket, from));
    LORRY_ASSIGN(
        const auto writer,
        data::ShardWriter::create(options_.bucket, store::shard_dir(target_, shard), schema_));
    Counts counts;
    for (int64_t i = 0; i < reader->num_batches(); ++i) {
      LORRY_ASSIGN(const auto batch, needed_columns(reader->batch(i)).with_context(from));
      const int64_t window = window_rows(*batch);
      for (int64_t begin = 0; begin < batch->num_rows(); begin += window) {
        std::vector<Slot> slots(std::min(window, batch->num_rows() - begin));
        encode_window(*chat_, *batch, begin, threads_, slots);
        LORRY_TRY(check_cancelled());
        LORRY_TRY(write_window(from, reader->batch_start(i) + begin, slots, *writer, counts));
        rows_done_ += static_cast<int64_t>(slots.size());
        if (options_.progress) options_.progress(rows_done_, rows_total_);
      }
    }
    LORRY_TRY(writer->finish());
    return counts;
  }

  Result<> write_window(const std::string& from, int64_t first_row, const std::vector<Slot>& slots,
                        data::ShardWriter& writer, Counts& counts) {
    std::vector<const text::EncodedExample*> rows;
    for (size_t i = 0; i < slots.size(); ++i) {
      if (slots[i].encoded.ok()) {
        counts.count(*slots[i].encoded);
        rows.push_back(&*slots[i].encoded);
        continue;
      }
      const Error& error = slots[i].encoded.error();
      const std::string place = fmt::format("{} row {}", from, first_row + static_cast<int64_t>(i));
      if (dropped_ >= options_.skip_bad_rows)
        return Error{error.kind,
                     fmt::format("{}: {}{}", place, error.message,
                                 options_.skip_bad_rows == 0
                                     ? "; --skip-bad-rows N leaves out up to N such rows"
                                     : fmt::format("; that is one more than --skip-bad-rows {}",
                                                   options_.skip_bad_rows))};
      ++dropped_;
      counts.drop(place, error.message);
      log::warn("{}: left out: {}", place, error.message);
    }
    if (rows.empty()) return {};
    return writer.write(*make_batch(schema_, rows));
  }

  const PretokenizeOptions& options_;
  const std::shared_ptr<const text::Chat> chat_;
  const std::string inputs_, source_, target_, journal_;
  const std::shared_ptr<arrow::Schema> schema_;
  const int threads_;
  std::vector<Counts> shards_;
  int64_t rows_done_ = 0, rows_total_ = 0, dropped_ = 0;
};

PretokenizeReport report_from(const Counts& counts, int64_t shards, bool up_to_date) {
  return {.shards = shards,
          .rows = counts.rows,
          .tokens = counts.tokens,
          .target_tokens = counts.target_tokens,
          .rows_without_target = counts.rows_without_target,
          .dropped = counts.dropped,
          .longest = counts.longest,
          .rows_over_4096 = counts.over[3],
          .up_to_date = up_to_date};
}

}  // namespace

Result<bool> tokens_are_stale(const store::Bucket& bucket, const Json& info,
                              const std::string& dataset) {
  LORRY_ASSIGN(const auto source, bucket.read_info(store::standardized_dir(dataset)));
  return source && info.value("source_digest", "") != sha256_hex(dump_json(*source));
}

Result<PretokenizeReport> pretokenize(const PretokenizeOptions& options) {
  const store::Bucket& bucket = *options.bucket;
  LORRY_ASSIGN(const auto model_info, bucket.read_info(store::model_dir(options.model)));
  if (!model_info)
    return not_found(fmt::format("{} is not complete in bucket {}; run lorry import-model first",
                                 store::model_dir(options.model), bucket.uri()));
  const std::string source = store::standardized_dir(options.dataset);
  LORRY_ASSIGN(const auto source_info, bucket.read_info(source));
  if (!source_info)
    return not_found(fmt::format(
        "{} is not complete in bucket {}; run lorry import-dataset (or lorry standardize) first",
        source, bucket.uri()));
  if (!source_info->contains("count") || !(*source_info)["count"].is_number_integer())
    return corrupt_data(fmt::format("{}/info.json has no count; standardize again", source));
  const int64_t last = (*source_info)["count"];

  LORRY_ASSIGN(const auto chat, load_chat(bucket, options.model));
  if (!chat->has_template() &&
      source_info->value("columns", Json::object()).contains("conversations"))
    return invalid_input(
        fmt::format("{} has no chat template, which the conversations of {} need; give it one with "
                    "lorry import-model --chat-template FILE",
                    store::model_dir(options.model), source));
  Json info = {
      {"count", last},
      {"model", options.model},
      {"dataset", options.dataset},
      {"source_digest", sha256_hex(dump_json(*source_info))},
      {"template_digest", chat->template_digest()},
      {"tokenizer_digest", chat->tokenizer_digest()},
      {"options", {{"with_text", options.with_text}, {"skip_bad_rows", options.skip_bad_rows}}},
      {"format", kFormat}};
  const std::string inputs = sha256_hex(dump_json(info));

  const std::string target = store::model_ready_dir(options.model, options.dataset);
  LORRY_ASSIGN(const auto known, bucket.read_info(target));
  if (known && !options.fresh && known->value("inputs", "") == inputs)
    return report_from(Counts::from_json(*known), last + 1, true);

  Stage stage(options, chat, inputs);
  LORRY_ASSIGN(const auto shards, stage.run(last, source_info->value("rows", int64_t{0})));
  Counts total;
  Json per_shard = Json::array();
  for (const auto& counts : shards) {
    total.add(counts);
    per_shard.push_back({{"rows", counts.rows}, {"tokens", counts.tokens}});
  }
  if (total.rows == 0) return invalid_input(fmt::format("{}: no row could be encoded", source));
  info["inputs"] = inputs;
  info.update(total.to_json());
  info["shards"] = per_shard;
  info["lorry_version"] = kVersion;
  LORRY_TRY(options.bucket->write_info(target, info));
  LORRY_TRY(stage.forget_journal());
  return report_from(total, last + 1, false);
}

}  // namespace lorry::pipeline

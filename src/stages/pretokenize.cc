#include "stages/pretokenize.h"

#include <arrow/api.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/cancel.h"
#include "base/digest.h"
#include "base/json.h"
#include "base/version.h"
#include "data/shard.h"
#include "data/token_shard.h"
#include "hub/model_dir.h"
#include "stages/messages.h"
#include "stages/pieces.h"
#include "stages/template_date.h"
#include "stages/token_counts.h"
#include "stages/vocabulary.h"
#include "store/layout.h"
#include "store/owner.h"

namespace lorry::stages {
namespace {

/// Raised when the same inputs come to give other bytes.
constexpr int kFormat = 5;
/// Bytes of ids and masks for a byte of text: at most 5 a token, seldom fewer than 2 bytes a token.
constexpr int kGrowth = 3;
/// In the ledger: what became of rows that are longer than --max-length.
constexpr char kTooLong[] = "longer than --max-length", kCut[] = "cut at --max-length",
               kSplit[] = "split at --max-length";
constexpr char kNotShown[] = "not shown by the chat template: ";
constexpr char kNewCallIds[] = "call ids changed to ones that the chat template takes";
constexpr char kNoEnd[] = "no end token is trained on";

/// Encoded rows into one record batch.
class TokenBatch {
 public:
  void append(const chat::EncodedExample& row) {
    ids_.insert(ids_.end(), row.input_ids.begin(), row.input_ids.end());
    masks_.insert(masks_.end(), row.assistant_masks.begin(), row.assistant_masks.end());
    ends_.push_back(int32_t(ids_.size()));
  }
  void append_text(const std::string& text) {
    text_ += text;
    text_ends_.push_back(int32_t(text_.size()));
  }

  /// With the rows' text if the schema has it.
  std::shared_ptr<arrow::RecordBatch> finish(const std::shared_ptr<arrow::Schema>& schema) {
    const auto rows = int64_t(ends_.size()) - 1;
    const auto tokens = int64_t(ids_.size());
    const auto ends = arrow::Buffer::FromVector(std::move(ends_));
    const auto list = [&](int column, std::shared_ptr<arrow::Array> values) {
      return std::make_shared<arrow::ListArray>(schema->field(column)->type(), rows, ends,
                                                std::move(values));
    };
    arrow::ArrayVector columns = {
        list(0, std::make_shared<arrow::Int32Array>(tokens,
                                                    arrow::Buffer::FromVector(std::move(ids_)))),
        list(1, std::make_shared<arrow::Int8Array>(tokens,
                                                   arrow::Buffer::FromVector(std::move(masks_))))};
    if (schema->num_fields() > 2) {
      columns.push_back(std::make_shared<arrow::StringArray>(
          rows, arrow::Buffer::FromVector(std::move(text_ends_)),
          arrow::Buffer::FromString(std::move(text_))));
    }
    return arrow::RecordBatch::Make(schema, rows, std::move(columns));
  }

 private:
  std::vector<int32_t> ids_, ends_ = {0}, text_ends_ = {0};
  std::vector<int8_t> masks_;
  std::string text_;
};

/// Some rows of a shard, encoded.
struct Piece {
  int64_t rows = 0;                           ///< read
  std::shared_ptr<arrow::RecordBatch> batch;  ///< of those that could be encoded
  TokenCounts counts;
  Ledger notes;                                          ///< kept rows alone
  std::vector<std::pair<int64_t, std::string>> refused;  ///< row of the shard, why
};

PretokenizeReport report_from(const PretokenizeOptions& options, const TokenCounts& counts,
                              int64_t dropped, int64_t shards) {
  PretokenizeReport report;
  report.length = options.length;
  report.shards = shards;
  report.counts = counts;
  report.dropped = dropped;
  return report;
}

/// A row without its answer would teach something else than it says.
Result<> check_losses(const std::vector<chat::Loss>& losses) {
  for (const auto& loss : losses) {
    if (loss.part != chat::Part::kAnswer && loss.part != chat::Part::kCall) continue;
    return invalid_input(fmt::format(
        "the chat template does not show {} ({}); give the model one that does (lorry import-model "
        "--chat-template FILE), or keep such rows with --template-losses warn",
        chat::name_of(loss.part), describe(loss)));
  }
  return {};
}

/// The stage at work on one model and data set.
class Pretokenization {
 public:
  /// `vocabulary`: rows of the embedding, where the tokenizer knows ids beyond them.
  Pretokenization(const PretokenizeOptions& options, std::shared_ptr<const chat::Chat> chat,
                  std::optional<int64_t> vocabulary)
      : options_(options),
        chat_(std::move(chat)),
        vocabulary_(vocabulary),
        source_(store::standardized_dir(options.dataset)),
        target_(store::model_ready_dir(options.model, options.dataset)),
        schema_(data::token_schema(options.with_text)),
        encoding_{.train_on = train_on_from(options.train_on),
                  .with_offsets = options.with_text && options.length.is_set()},
        limits_(PieceLimits::of(options, kGrowth)) {}

  /// Encodes what is missing of `shards` shards; completes `info` and writes it if all are there.
  Result<PretokenizeReport> run(store::Claim& claim, Json info, int64_t shards,
                                int64_t rows_total) {
    rows_total_ = rows_total;
    options_.bucket = claim.bucket();
    ShardWork work(options_, claim, target_, info["inputs"], shards, rows_total);
    LORRY_TRY(work.begin([](int64_t, const Json&) { return Result<>(); }));
    rows_done_ = work.rows_done();
    if (options_.progress) options_.progress(rows_done_, rows_total_);
    while (true) {
      LORRY_ASSIGN(const auto shard, work.next());
      if (!shard) break;
      LORRY_TRY(encode_shard(work, *shard));
    }
    return complete(work, std::move(info), shards);
  }

 private:
  Result<> encode_shard(ShardWork& work, int64_t shard) {
    const std::string from = store::shard_dir(source_, shard);
    LORRY_ASSIGN(const auto rows, data::ShardStream::open(*options_.bucket, from));
    LORRY_ASSIGN(auto writer, data::ShardWriter::create(options_.bucket,
                                                        store::shard_dir(target_, shard), schema_));
    Ledger ledger;
    TokenCounts counts;
    const auto encode = [&](const RowPiece& piece) { return encode_piece(piece, from); };
    const auto use = [&](Piece piece) -> Result<bool> {
      counts.add(piece.counts);
      ledger.add(piece.notes);
      for (auto& [row, why] : piece.refused) {
        LORRY_TRY(work.refuse(ledger, {from, row, std::move(why)}));
      }
      if (piece.batch) LORRY_TRY(writer->write(*piece.batch));
      rows_done_ += piece.rows;
      if (options_.progress) options_.progress(rows_done_, rows_total_);
      return true;
    };
    LORRY_TRY(each_piece<Piece>(*rows, limits_, encode, use));
    Json state = work.state(shard, ledger);
    state["counts"] = counts.to_json();
    writer->set_state(state);
    return work.finish_shard(std::move(writer), ledger);
  }

  Piece encode_piece(const RowPiece& from, const std::string& place) const {
    Piece piece;
    piece.rows = from.batch->num_rows();
    const ExampleReader examples(*from.batch);
    TokenBatch encoded;
    for (int64_t row = 0; row < piece.rows && !cancel_requested(); ++row) {
      auto example = encode_row(examples, row);
      if (!example.ok()) {
        piece.refused.emplace_back(from.first_row + row, example.error().message);
        continue;
      }
      append(*std::move(example), {place, from.first_row + row, ""}, encoded, piece);
    }
    if (piece.counts.rows > 0) piece.batch = encoded.finish(schema_);
    return piece;
  }

  /// Writes an example as the limit wants it, and into the ledger what became of it.
  void append(chat::EncodedExample example, Ledger::Named row, TokenBatch& batch,
              Piece& piece) const {
    const auto tokens = int64_t(example.input_ids.size());
    const bool trains_end = example.trains_end;
    const bool changes_call_ids = example.changes_call_ids;
    const auto losses = std::move(example.losses);
    const auto fitted = fit(std::move(example), options_.length, piece.counts.excess);
    if (options_.length.is_set() && tokens > options_.length.max_length) {
      Ledger::Named named = row;
      named.detail = fmt::format("{} tokens", tokens);
      if (fitted.empty()) return piece.notes.drop(kTooLong, std::move(named));
      const bool split = options_.length.excess == Excess::kSplit;
      piece.notes.note(split ? kSplit : kCut, std::move(named));
    }
    note_losses(losses, row, piece);
    if (changes_call_ids) {
      ++piece.counts.rows_with_new_call_ids;
      piece.notes.note(kNewCallIds, row);
    }
    bool teaches = false;
    for (const auto& part : fitted) {
      teaches |= piece.counts.count(part);
      batch.append(part);
      if (options_.with_text) batch.append_text(part.text);
    }
    if (teaches && !trains_end) {
      ++piece.counts.rows_without_end;
      piece.notes.note(kNoEnd, row);
    }
    if (!teaches)
      piece.notes.note("nothing to train on: " + why_no_target(fitted.front()), std::move(row));
    piece.notes.keep(1);
  }

  /// A row once for each kind of what it loses.
  static void note_losses(const std::vector<chat::Loss>& losses, const Ledger::Named& row,
                          Piece& piece) {
    std::set<chat::Part> seen;
    for (const auto& loss : losses) {
      if (!seen.insert(loss.part).second) continue;
      const std::string kind(chat::name_of(loss.part));
      Ledger::Named named = row;
      named.detail = describe(loss);
      auto& like = piece.counts.losses[kind];
      if (like.rows++ == 0)
        like.first = fmt::format("{} row {}, {}", row.place, row.row, named.detail);
      piece.notes.note(kNotShown + kind, std::move(named));
    }
  }

  Result<chat::EncodedExample> encode_row(const ExampleReader& examples, int64_t row) const {
    LORRY_ASSIGN(const auto example, examples.at(row));
    auto encoded = encode(*chat_, example, encoding_);
    if (!encoded.ok()) return encoded;
    if (encoded->input_ids.empty()) return invalid_input("it has no tokens");
    if (options_.losses == TemplateLosses::kFail) LORRY_TRY(check_losses(encoded->losses));
    if (vocabulary_) LORRY_TRY(check_ids(*chat_, encoded->input_ids, *vocabulary_));
    return encoded;
  }

  Result<PretokenizeReport> complete(ShardWork& work, Json info, int64_t shards) {
    TokenCounts total;
    Json per_shard = Json::array();
    LORRY_ASSIGN(const auto missing, work.collect([&](int64_t, const Json& state) -> Result<> {
      const auto counts = TokenCounts::from_json(state.value("counts", Json::object()));
      total.add(counts);
      per_shard.push_back({{"rows", counts.rows}, {"tokens", counts.tokens}});
      return {};
    }));
    auto report = report_from(options_, total, work.ledger().dropped(), shards);
    report.missing = int64_t(missing.size());
    if (!missing.empty()) return report;
    if (total.rows == 0) return nothing_written(total);
    info.update(total.to_json());
    info["dropped"] = work.ledger().dropped();
    info["shards"] = per_shard;
    info["lorry_version"] = kVersion;
    LORRY_ASSIGN(report.digest, work.finish(std::move(info)));
    report.complete = true;
    return report;
  }

  Error nothing_written(const TokenCounts& counts) const {
    if (counts.excess.rows == 0)
      return invalid_input(fmt::format("{}: no row could be encoded", source_));
    return invalid_input(fmt::format(
        "{}: {} rows are longer than --max-length {}, and no other is left; allow more, "
        "or --excess-length truncate or split",
        source_, counts.excess.rows, options_.length.max_length));
  }

  PretokenizeOptions options_;  ///< `bucket` becomes the claim's
  const std::shared_ptr<const chat::Chat> chat_;
  const std::optional<int64_t> vocabulary_;
  const std::string source_, target_;
  const std::shared_ptr<arrow::Schema> schema_;
  const chat::ExampleOptions encoding_;
  const PieceLimits limits_;
  int64_t rows_done_ = 0, rows_total_ = 0;
};

/// Where a run begins: what it is made of, checked. Nothing else decides the output.
Result<Json> describe_inputs(const PretokenizeOptions& options, const chat::Chat& chat,
                             std::optional<int64_t> vocabulary, const Json& source_info) {
  const std::string source = store::standardized_dir(options.dataset);
  if (!source_info.contains("count") || !source_info["count"].is_number_integer())
    return corrupt_data(fmt::format("{}/info.json has no count; standardize again", source));
  if (!chat.has_template() &&
      source_info.value("columns", Json::object()).contains("conversations"))
    return invalid_input(
        fmt::format("{} has no chat template, which the conversations of {} need; give it one with "
                    "lorry import-model --chat-template FILE",
                    store::model_dir(options.model), source));
  Json info = {{"count", source_info["count"]},
               {"model", options.model},
               {"dataset", options.dataset},
               {"source_digest", sha256_hex(dump_json(source_info))},
               {"template_digest", chat.template_digest()},
               {"tokenizer_digest", chat.tokenizer_digest()},
               {"options", {{"with_text", options.with_text}}},
               {"format", kFormat}};
  Json settings = chat.settings().to_json();
  if (!chat.uses_date()) settings.erase("date");
  if (!settings.empty()) info["template_settings"] = std::move(settings);
  if (options.train_on != "assistant") info["options"]["train_on"] = options.train_on;
  if (options.losses != TemplateLosses::kFail) info["options"]["template_losses"] = "kept";
  if (options.length.is_set()) {
    info["options"]["max_length"] = options.length.max_length;
    info["options"]["excess_length"] = name_of(options.length.excess);
  }
  if (vocabulary) info["options"]["vocabulary"] = *vocabulary;
  info["inputs"] = sha256_hex(dump_json(info));
  return info;
}

}  // namespace

TemplateLosses template_losses_from(const std::string& name) {
  return name == "warn"    ? TemplateLosses::kWarn
         : name == "allow" ? TemplateLosses::kAllow
                           : TemplateLosses::kFail;
}

chat::TrainOn train_on_from(const std::string& name) {
  return name == "all"    ? chat::TrainOn::kAll
         : name == "last" ? chat::TrainOn::kLast
                          : chat::TrainOn::kAssistant;
}

Result<bool> tokens_are_stale(const store::Bucket& bucket, const Json& info,
                              const std::string& dataset) {
  LORRY_ASSIGN(const auto source, bucket.read_info(store::standardized_dir(dataset)));
  return source && info.value("source_digest", "") != sha256_hex(dump_json(*source));
}

namespace {

/// What a run is made of, as it lies in the bucket at one moment.
struct Inputs {
  std::shared_ptr<const chat::Chat> chat;
  std::optional<int64_t> vocabulary;  ///< rows of the embedding, where ids may go beyond them
  Json info;                          ///< of the output, as far as it is known before the work
  int64_t shards = 0, rows = 0;
  bool expected = true;  ///< it is what the caller meant
};

/// The same day in every run and on every node, where the template asks for it.
Result<std::shared_ptr<const chat::Chat>> load_dated_chat(const PretokenizeOptions& options,
                                                          const Json& source_info) {
  auto settings = options.template_settings;
  if (settings.date.empty()) settings.date = source_info.value("imported_on", "");
  LORRY_ASSIGN(auto chat, load_chat(*options.bucket, options.model, settings));
  report_unused_date(*chat, options.model, options.template_settings.date);
  if (chat->uses_date() && settings.date.empty())
    return usage_error(fmt::format(
        "the chat template of {} writes the day, and {} does not say on which it was imported; "
        "give one with --date YYYY-MM-DD",
        store::model_dir(options.model), store::standardized_dir(options.dataset)));
  return chat;
}

Result<Inputs> read_inputs(const PretokenizeOptions& options) {
  const store::Bucket& bucket = *options.bucket;
  LORRY_ASSIGN(const auto model_info, bucket.read_info(store::model_dir(options.model)));
  const std::string source = store::standardized_dir(options.dataset);
  LORRY_ASSIGN(const auto source_info, bucket.read_info(source));
  const auto is_meant = [](const std::optional<Json>& info, const std::string& digest) {
    return digest.empty() || (info && digest_of_info(*info) == digest);
  };
  Inputs inputs;
  inputs.expected =
      is_meant(model_info, options.expected_model) && is_meant(source_info, options.expected_input);
  if (!inputs.expected) return inputs;
  if (!model_info)
    return not_found(fmt::format("{} is not complete in bucket {}; run lorry import-model first",
                                 store::model_dir(options.model), bucket.uri()));
  if (!source_info)
    return not_found(fmt::format(
        "{} is not complete in bucket {}; run lorry import-dataset (or lorry standardize) first",
        source, bucket.uri()));
  LORRY_ASSIGN(inputs.chat, load_dated_chat(options, *source_info));
  const std::string model_dir = store::model_dir(options.model);
  LORRY_ASSIGN(const auto config, hub::text_files(bucket, model_dir)("config.json"));
  inputs.vocabulary = rows_to_check(*inputs.chat, Json::parse(config.value_or(""), nullptr, false));
  LORRY_ASSIGN(inputs.info,
               describe_inputs(options, *inputs.chat, inputs.vocabulary, *source_info));
  inputs.shards = inputs.info["count"].get<int64_t>() + 1;
  inputs.rows = source_info->value("rows", int64_t{0});
  return inputs;
}

/// The report of an output that is what the inputs make; nullopt if it is not.
Result<std::optional<PretokenizeReport>> find_finished(const PretokenizeOptions& options,
                                                       const Inputs& inputs) {
  const std::string target = store::model_ready_dir(options.model, options.dataset);
  LORRY_ASSIGN(const auto known, options.bucket->read_info(target));
  if (known) LORRY_TRY(store::check_owner(target, *known, options.model, options.dataset));
  if (!known || options.fresh || known->value("inputs", "") != inputs.info["inputs"]) {
    return std::optional<PretokenizeReport>();
  }
  LORRY_TRY(check_finished(options, target, *known));
  auto report = report_from(options, TokenCounts::from_json(*known),
                            known->value("dropped", int64_t{0}), inputs.shards);
  report.digest = digest_of_info(*known);
  report.complete = report.up_to_date = true;
  return std::optional(std::move(report));
}

}  // namespace

Result<PretokenizeReport> pretokenize(const PretokenizeOptions& options) {
  LORRY_TRY(check(options));
  std::unique_ptr<store::Claim> claim;
  std::string claimed;
  while (true) {
    LORRY_ASSIGN(Inputs inputs, read_inputs(options));
    if (!inputs.expected) return PretokenizeReport{.input_changed = true};
    LORRY_ASSIGN(auto finished, find_finished(options, inputs));
    if (finished) return *std::move(finished);
    const auto key = inputs.info["inputs"].get<std::string>();
    if (claim && claimed == key) {
      log_memory("pretokenize", options);
      return Pretokenization(options, inputs.chat, inputs.vocabulary)
          .run(*claim, std::move(inputs.info), inputs.shards, inputs.rows);
    }
    // Who had it before may have done the work, or changed what it is made of.
    claim.reset();
    claimed = key;
    LORRY_ASSIGN(claim, claim_output(options, options.bucket, "pretokenize",
                                     store::model_ready_dir(options.model, options.dataset),
                                     {store::standardized_dir(options.dataset),
                                      store::model_dir(options.model)},
                                     claimed));
  }
}

}  // namespace lorry::stages

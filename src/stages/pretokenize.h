// `lorry pretokenize`: standardized shards into model-ready ones, ids and masks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "stages/length_limit.h"
#include "stages/shard_work.h"
#include "stages/token_counts.h"
#include "store/bucket.h"

namespace lorry::stages {

/// What becomes of rows of which the chat template does not show something.
enum class TemplateLosses {
  kFail,   ///< without an answer or a tool call they are refused; the rest is kept and told
  kWarn,   ///< all are kept and told
  kAllow,  ///< all are kept, and only the ledger has them
};

struct PretokenizeOptions : ShardWorkOptions {
  std::shared_ptr<store::Bucket> bucket;
  std::string model, dataset;          ///< names in the bucket
  bool with_text = false;              ///< keep the rendered text in a column `text`
  std::string train_on = "assistant";  ///< turns whose mask is 1: assistant, last (of them), all
  LengthLimit length;                  ///< of the rows that are written
  TemplateLosses losses = TemplateLosses::kFail;
  /// Recorded, and used again by evaluation and serving. Without a date, that on which the data set
  /// was first imported.
  chat::TemplateSettings template_settings;
  /// Called between batches from the calling thread. `rows_total` 0: not known.
  std::function<void(int64_t rows, int64_t rows_total)> progress;
  /// digest_of_info of the standardized shards and of the model that are meant; empty: whatever is
  /// there.
  std::string expected_input, expected_model;
};

struct PretokenizeReport {
  int64_t shards = 0;
  TokenCounts counts;          ///< of the rows that were written
  LengthLimit length;          ///< that they were held to
  int64_t dropped = 0;         ///< rows that were left out
  int64_t missing = 0;         ///< shards that other nodes have not made yet
  bool complete = false;       ///< every shard is there, and info.json
  bool up_to_date = false;     ///< nothing had changed, nothing was done
  std::string digest;          ///< digest_of_info of the output
  bool input_changed = false;  ///< it is not what was expected: nothing was done
};

/// Encodes every row with the model's own template and tokenizer; without a limit whole: training
/// cuts what is longer than its --max-length. Makes the shards of this process's part, and
/// info.json if all parts are there; goes on after the last whole shard of an interrupted run, with
/// the bytes of an undisturbed one. Rows that the template refuses count as malformed
/// (skip_bad_rows), and so do those whose answers or calls it does not show, unless `losses` says
/// otherwise. Fails with not found if its inputs are not complete; the error of a row names
/// shard and row.
Result<PretokenizeReport> pretokenize(const PretokenizeOptions& options);

/// The word for PretokenizeOptions::losses.
TemplateLosses template_losses_from(const std::string& name);

/// The word for PretokenizeOptions::train_on.
chat::TrainOn train_on_from(const std::string& name);

/// Whether the standardized data set is another now than when the tokens whose info.json is `info`
/// were made of it. A data set that is gone leaves its tokens as they are.
Result<bool> tokens_are_stale(const store::Bucket& bucket, const Json& info,
                              const std::string& dataset);

}  // namespace lorry::stages

// Evaluation's public face; free of libtorch, so that the program can fill it in without the
// engine.
#pragma once

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace lorry::train {

/// A conversation up to the turn that the models are asked for.
struct EvalPrompt {
  Json messages;  ///< array of {role, content, ...}
  Json tools;     ///< array or null
};

struct EvalOptions {
  std::string bucket = "./bucket";
  std::string model;    ///< the base model's name in the bucket
  std::string dataset;  ///< what is evaluated on: model-ready/{model}/{dataset}
  bool base = true;     ///< evaluate the base model, beside the fine-tuned one if there is one
  /// The fine-tuned model: the run's name below done/{model} ("dataset", "dataset@run"), or a
  /// directory with a PEFT adapter, here or in the bucket. Both empty: the base model alone. At
  /// most one is given.
  std::string run, adapter;
  int64_t max_rows = 0;             ///< the first so many examples; 0: all
  int64_t max_length = 4096;        ///< tokens; longer examples are cut at the end and counted
  std::vector<EvalPrompt> prompts;  ///< answered greedily by every model
  int64_t max_new_tokens = 128;     ///< of an answer, at most
  std::string dtype = "auto";
  std::string device = "auto";
};

/// What one model scored.
struct EvalScore {
  std::string name;  ///< "model", "model/dataset", or the adapter's directory
  double loss = 0;   ///< mean over all target tokens, in nats
  double perplexity() const { return std::exp(loss); }
  std::vector<std::string> answers;  ///< one a prompt
};

struct EvalReport {
  int64_t examples = 0;        ///< that have a target
  int64_t empty_examples = 0;  ///< without a target within max_length: not counted in `examples`
  int64_t cut_examples = 0;    ///< longer than max_length
  int64_t target_tokens = 0;
  std::vector<EvalScore> models;  ///< the base first
  double seconds = 0;
};

/// Scores the models on the targets that training learns from: the tokens whose assistant mask
/// is 1. The loss is that of training: next-token cross-entropy, softmax in float32, each target of
/// equal weight. Fails where the data is not tokenized, was tokenized for another model, has no
/// target, or where the fine-tuned model is not there. Cancelled after a signal.
Result<EvalReport> evaluate(const EvalOptions& options);

}  // namespace lorry::train

// Training's public face; free of libtorch, so that the program can fill it in without the engine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace lorry::train {

/// The defaults are the guide's.
struct TrainOptions {
  std::string bucket = "./bucket";
  std::string dataset, model;  ///< names in the bucket
  /// Keeps checkpoints and results apart from those of other runs on the same data:
  /// done/{model}/{dataset}@{run_name}. Empty: done/{model}/{dataset}.
  std::string run_name;

  // Schedule and optimiser, stepped as `transformers`' Trainer steps them.
  double learning_rate = 2e-4;
  std::string lr_scheduler_type = "linear";  ///< linear, cosine, constant, constant_with_warmup
  int64_t warmup_steps = 5;
  double weight_decay = 0.01;
  double adam_beta1 = 0.9, adam_beta2 = 0.999, adam_epsilon = 1e-8;
  double max_grad_norm = 1.0;  ///< 0: no clipping
  int64_t batch_size = 2;      ///< rows a micro-batch; a row is an example, or a packed row
  int64_t gradient_accumulation_steps = 4;
  int64_t max_steps = 0;  ///< 0: as many as `epochs` takes
  double epochs = 1;

  // Data.
  int64_t max_length = 4096;  ///< tokens; longer examples are cut at the end and counted
  bool packing = false;       ///< several examples in a row of max_length, none seeing another
  bool shuffle = true;
  uint64_t seed = 3407;

  // What is trained.
  bool full = false;  ///< all weights instead of an adapter
  int64_t lora_r = 16;
  double lora_alpha = 16;
  double lora_dropout = 0;
  /// Names, or one regular expression over whole module names; empty: every linear map outside
  /// experts.
  std::vector<std::string> target_modules;
  bool use_rslora = false;  ///< scale by alpha / sqrt(r): Kalajdzievski 2023, arXiv:2312.03732
  bool use_dora = false;    ///< magnitudes apart: Liu et al. 2024, arXiv:2402.09353
  std::string lora_bias = "none";            ///< biases that are trained: none, all, lora_only
  std::vector<std::string> modules_to_save;  ///< trained whole: embed_tokens, lm_head
  std::string adapter;                       ///< directory of a PEFT adapter to start from

  // Machine.
  std::string dtype = "auto";
  /// What the frozen maps of the blocks are held as: dense (in dtype), fp8, nf4. The adapter is
  /// trained on these numbers; the merged model is the checkpoint's own weights with it.
  std::string base_format = "dense";
  std::string device = "auto";
  /// What the backward pass computes again instead of keeping it: none, light (outputs of norms and
  /// gates), full (all but the blocks' inputs), offload (those in host memory); auto: the first of
  /// them that fits the memory that is free. Less memory, the same numbers.
  std::string recompute = "auto";
  int64_t save_steps = 100;   ///< checkpoint every so many steps
  double save_seconds = 300;  ///< and at least this often
  bool replace = false;       ///< train in place of another run's checkpoint or result
  bool fresh = false;         ///< start over: ignore checkpoints and finished results
  bool wait = true;           ///< while another process is at this run; false: fail at once

  /// Digests of the info.json of the tokens and of the model that are meant; empty: whatever is
  /// there.
  std::string expected_data, expected_model;
};

struct TrainReport {
  int64_t steps = 0;
  int64_t tokens = 0;  ///< trained on by this run and those it resumed
  double last_loss = 0;
  double seconds = 0;          ///< of this run
  std::string recompute;       ///< of this run: what auto came to
  bool already_done = false;   ///< nothing had changed
  bool input_changed = false;  ///< it is not what was expected: nothing was done
};

/// Trains over every shard of model-ready/{model}/{dataset}, then writes done/{model}/{dataset}/:
/// lora_model, fused, metrics.jsonl, info.json. Goes on from the last checkpoint. Cancelled after
/// a signal, with a checkpoint saved. What another run left there, a result or a checkpoint, is
/// invalid input without `replace` or `fresh`.
Result<TrainReport> train(const TrainOptions& options);

}  // namespace lorry::train

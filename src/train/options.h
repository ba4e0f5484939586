// The one list of training options. Flags, checks, the identity of a run, `plan` and the probe of
// the tests all walk it, so that a new option is one field of TrainOptions and one entry here. Free
// of libtorch.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/range.h"
#include "base/result.h"
#include "train/train.h"

namespace lorry::train {

/// What another value of an option means.
enum class Decides {
  kResult,      ///< another run: its numbers differ
  kLora,        ///< the same, except for full training, which has no adapter
  kNewAdapter,  ///< the same as kLora; an adapter to start from decides it, so both are refused
  kNothing,     ///< the same result, reached in another way
};

/// What is known of an option beside its value. The default is the field's own in TrainOptions.
struct OptionSpec {
  std::string_view flag;  ///< "--learning-rate"; the field is named alike
  std::string_view help;
  std::string_view unit = {};                  ///< "steps"; empty: a bare number, or no number
  Range range = {};                            ///< of numbers
  std::string_view value_name = {};            ///< of texts and lists, as help shows it: "DIR"
  std::vector<std::string_view> choices = {};  ///< of texts; empty: any text
  bool negatable = false;                      ///< of switches: there is a --no-FLAG
  /// Newer than the first stored identities: left out of them where it is the default, so that the
  /// runs before stay the same runs.
  bool newer = false;
  Decides decides = Decides::kResult;

  /// "learning_rate": the field, and the key in the identity of a run.
  std::string key() const;
};

/// Calls visit(const OptionSpec&, field) for every option but the names of bucket, data set, model
/// and run. `Options` is TrainOptions or const. The order is that of the help and of the identity,
/// which checkpoints and published runs have stored: a new option is marked `newer`.
template <typename Options, typename Visit>
void visit_options(Options& o, Visit&& visit) {
  const auto number = [&](std::string_view flag, auto& field, Range range, std::string_view unit,
                          std::string_view help, Decides decides = Decides::kResult) {
    visit(OptionSpec{.flag = flag, .help = help, .unit = unit, .range = range, .decides = decides},
          field);
  };
  const auto choice = [&](std::string_view flag, auto& field, std::vector<std::string_view> choices,
                          std::string_view help, Decides decides = Decides::kResult) {
    visit(OptionSpec{.flag = flag, .help = help, .choices = std::move(choices), .decides = decides},
          field);
  };
  const auto text = [&](std::string_view flag, auto& field, std::string_view value_name,
                        std::string_view help, Decides decides) {
    visit(OptionSpec{.flag = flag, .help = help, .value_name = value_name, .decides = decides},
          field);
  };
  const auto toggle = [&](std::string_view flag, auto& field, bool negatable, std::string_view help,
                          Decides decides = Decides::kResult) {
    visit(OptionSpec{.flag = flag, .help = help, .negatable = negatable, .decides = decides},
          field);
  };

  // Schedule and optimiser.
  number("--learning-rate", o.learning_rate, above(0), "", "peak learning rate");
  choice("--lr-scheduler-type", o.lr_scheduler_type,
         {"linear", "cosine", "constant", "constant_with_warmup"}, "schedule over all shards");
  number("--warmup-steps", o.warmup_steps, at_least(0), "steps", "steps until the peak rate");
  number("--weight-decay", o.weight_decay, at_least(0), "", "AdamW weight decay");
  number("--adam-beta1", o.adam_beta1, below_one(), "", "decay of AdamW's first moment");
  number("--adam-beta2", o.adam_beta2, below_one(), "", "decay of AdamW's second moment");
  number("--adam-epsilon", o.adam_epsilon, above(0), "", "AdamW epsilon");
  number("--max-grad-norm", o.max_grad_norm, at_least(0), "", "gradient clipping; 0: none");
  number("--batch-size", o.batch_size, at_least(1), "rows", "rows a micro-batch");
  number("--gradient-accumulation-steps", o.gradient_accumulation_steps, at_least(1),
         "micro-batches", "micro-batches a step");
  number("--max-steps", o.max_steps, at_least(0), "steps",
         "stop after N steps; 0: --epochs decides");
  number("--epochs", o.epochs, above(0), "epochs", "passes over the data");
  // Data.
  number("--max-length", o.max_length, at_least(2), "tokens", "tokens; longer examples are cut");
  toggle("--packing", o.packing, true, "several examples in a row of --max-length");
  toggle("--shuffle", o.shuffle, true, "a seeded shuffle of each epoch; off: data order");
  number("--seed", o.seed, at_least(0), "", "seed of shuffle, dropout and fresh adapters");
  // What is trained.
  toggle("--full", o.full, false, "train all weights instead of an adapter");
  choice("--dtype", o.dtype, {"auto", "float32", "bfloat16", "float16"},
         "type of the frozen weights and of the arithmetic");
  visit(OptionSpec{.flag = "--base-format",
                   .help = "what the frozen weights of the blocks are held as: dense, in --dtype; "
                           "fp8, a byte each; nf4, half a byte each (QLoRA)",
                   .choices = {"dense", "fp8", "nf4"},
                   .newer = true},
        o.base_format);
  number("--lora-r", o.lora_r, between(1, 65536), "", "rank of the adapter", Decides::kNewAdapter);
  number("--lora-alpha", o.lora_alpha, above(0), "", "adapter scale is alpha / r",
         Decides::kNewAdapter);
  number("--lora-dropout", o.lora_dropout, below_one(), "",
         "dropout before the adapter; 0: what --adapter was trained with, or none", Decides::kLora);
  text("--target-modules", o.target_modules, "A,B,...",
       "linear maps that get an adapter, or one regular expression over their whole names "
       "(all-linear: all outside experts)",
       Decides::kNewAdapter);
  const auto newer = [&](OptionSpec spec, auto& field) {
    spec.decides = Decides::kNewAdapter;
    spec.newer = true;
    visit(std::as_const(spec), field);
  };
  newer({.flag = "--use-rslora", .help = "scale by alpha / sqrt(r)"}, o.use_rslora);
  newer({.flag = "--use-dora", .help = "DoRA: magnitudes of the rows are trained apart"},
        o.use_dora);
  newer({.flag = "--lora-bias",
         .help = "biases that are trained too: none, all, or those of the adapter's maps",
         .choices = {"none", "all", "lora_only"}},
        o.lora_bias);
  newer({.flag = "--modules-to-save",
         .help = "trained whole and saved with the adapter: embed_tokens, lm_head",
         .value_name = "A,B",
         .choices = {"embed_tokens", "lm_head"}},
        o.modules_to_save);
  // Its contents are a part of the identity, its name is not.
  text("--adapter", o.adapter, "DIR",
       "PEFT adapter to start from, here or in the bucket; it decides rank, alpha and modules",
       Decides::kNothing);
  // Machine.
  text("--device", o.device, "auto|cpu|cuda", "where to train", Decides::kNothing);
  choice("--recompute", o.recompute, {"auto", "none", "light", "full", "offload"},
         "what the backward pass computes again instead of keeping it: none; light, outputs of "
         "norms and gates; full, whole blocks; offload, the same with their inputs in host memory; "
         "auto, the first that fits the free memory. The numbers stay the same",
         Decides::kNothing);
  number("--save-steps", o.save_steps, at_least(0), "steps",
         "steps between checkpoints; 0: --save-seconds decides", Decides::kNothing);
  number("--save-seconds", o.save_seconds, above(0), "seconds",
         "seconds between checkpoints at most", Decides::kNothing);
  toggle("--replace", o.replace, false,
         "train in place of what a run with other options or inputs left under this name: its "
         "result stays until the new one is published, its checkpoint until the first new one",
         Decides::kNothing);
  toggle("--fresh", o.fresh, false,
         "start over, even where this very run has a checkpoint or a result; implies --replace",
         Decides::kNothing);
}

/// Refuses values that no run can have, naming the flag.
Result<> check_options(const TrainOptions& options);

/// The options that decide the result, by key: a part of a run's identity.
Json result_options(const TrainOptions& options);

/// The flags that an adapter to start from makes meaningless.
std::vector<std::string> new_adapter_flags();
/// Says which of them were given beside --adapter.
Error refused_beside_adapter(const std::vector<std::string>& flags);

}  // namespace lorry::train

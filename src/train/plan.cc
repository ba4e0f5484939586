#include "train/plan.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "model/safetensors.h"
#include "model/transformer.h"  // check_base_format
#include "ops/device.h"
#include "store/layout.h"
#include "train/checkpoint.h"
#include "train/flops.h"
#include "train/inputs.h"
#include "train/loss.h"
#include "train/merge_check.h"
#include "train/micro_batch_size.h"
#include "train/options.h"
#include "train/publish.h"
#include "train/rows.h"
#include "train/schedule.h"

namespace lorry::train {
namespace {

/// Libraries, tokens and work space of the matrix products, whatever the model.
constexpr int64_t kFixedBytes = int64_t{600} << 20;
/// What the backward pass and the allocator need beside the activations themselves: measured peaks
/// of a 0.5 B model lay between 1.0 and 1.4 of them.
constexpr double kActivationShare = 1.4;

/// Float32 logits that the merge check has at the same time.
constexpr int64_t kCheckedLogits = 4;

/// Float32 parameter, gradient and two moments. Full training of a 16-bit model also keeps the
/// 16-bit gradient that autograd leaves.
constexpr int64_t kStateBytes = 16, kFullStateBytes = 18;

Result<int64_t> count_parameters(const store::Bucket& bucket, const std::string& dir) {
  LORRY_ASSIGN(const auto reader, model::SafetensorsReader::open(bucket, dir, "model"));
  int64_t parameters = 0;
  for (const auto& name : reader->names()) {
    int64_t size = 1;
    for (const int64_t extent : reader->shape(name)) size *= extent;
    parameters += size;
  }
  return parameters;
}

/// Where the run would take place; a GPU need not be there to be planned for.
Result<at::Device> planned_device(const std::string& name) {
  if (name.starts_with("cuda")) return at::Device(at::kCUDA);
  return ops::resolve_device(name);
}

Result<int64_t> bytes_of_a_weight(const TrainOptions& options, const model::ModelSpec& spec,
                                  at::Device device) {
  std::string dtype = options.dtype;
  if (dtype == "auto" && device.is_cuda()) dtype = "bfloat16";
  LORRY_ASSIGN(const auto type, ops::resolve_dtype(dtype, spec.dtype, at::Device(at::kCPU)));
  return int64_t{type == at::kFloat ? 4 : 2};
}

/// Bytes of the base while it is trained on, and what comes and goes beside it.
struct BaseBytes {
  int64_t weights = 0;
  int64_t widened = 0;   ///< the largest matrix of a quantised base, for a product
  int64_t checking = 0;  ///< what the check of the merge holds of a model, beside nothing else
};

/// `dense`: bytes of a number that is not quantised.
BaseBytes base_bytes(const model::ModelSpec& spec, int64_t parameters, int64_t dense,
                     ops::WeightFormat format) {
  if (format == ops::WeightFormat::kDense) {
    return {parameters * dense, 0, parameters * dense};
  }
  int64_t blocks = 0, quantised = 0, largest = 0;  // numbers, bytes, numbers
  std::vector<int64_t> of_layer(spec.layers.size());
  for (const model::LinearSpec& linear : spec.linears) {
    if (linear.layer < 0) continue;
    for (const model::Module& module : linear.modules) {
      const int64_t numbers = module.rows * linear.in;
      blocks += numbers;
      of_layer[linear.layer] += numbers;
      quantised += ops::format_bytes(format, module.rows, linear.in);
      largest = std::max(largest, numbers);
    }
  }
  const int64_t outside = std::max<int64_t>(0, parameters - blocks) * dense;
  const int64_t block = of_layer.empty() ? 0 : *std::max_element(of_layer.begin(), of_layer.end());
  // The block, and the copy of it that rounding moves.
  return {outside + quantised, largest * dense, outside + 2 * block * dense};
}

/// Which part of the data set's tokens has a loss; all of them if its record does not say.
double share_of_targets(const Json& info) {
  const Json tokens = info.value("tokens", Json()), targets = info.value("target_tokens", Json());
  if (!tokens.is_number() || !targets.is_number() || tokens <= 0) return 1;
  return targets.get<double>() / tokens.get<double>();
}

/// Walks the steps of the run and counts.
void play(const TrainOptions& options, const Inputs& inputs, TrainPlan& plan, RunWork& work) {
  RowSource rows = make_rows(options, inputs);
  const int64_t rows_per_step = options.batch_size * options.gradient_accumulation_steps;
  plan.examples = rows.examples();
  plan.steps =
      options.max_steps > 0 ? options.max_steps : count_steps(rows, options.epochs, rows_per_step);
  Cursor cursor;
  int64_t most = 0;  // tokens of a step
  for (int64_t step = 0; step < plan.steps; ++step) {
    int64_t tokens = 0;
    for (const PackedRow& row : take_step(rows, cursor, rows_per_step)) {
      ++plan.rows;
      for (const Place& place : row) {
        const auto size = static_cast<int64_t>(inputs.row(place).input_ids.size());
        plan.longest = std::max(plan.longest, size);
        plan.cut_examples += size > options.max_length;
        tokens += std::min(size, options.max_length);
        work.attended += attended_keys(inputs.spec, std::min(size, options.max_length));
      }
    }
    plan.tokens += tokens;
    most = std::max(most, tokens);
  }
  const int64_t longest = std::min(plan.longest, options.max_length);
  plan.micro_batch_tokens = std::min(most, std::max(plan.micro_batch_tokens, longest));
  work.tokens = static_cast<double>(plan.tokens);
  work.targets = work.tokens * share_of_targets(inputs.data_info);
}

std::vector<std::string> warnings_of(const TrainOptions& options, const Inputs& inputs,
                                     int64_t steps) {
  std::vector<std::string> warnings;
  if (auto text = warm_up_warning(options, steps); !text.empty()) {
    warnings.push_back(std::move(text));
  }
  const auto published = find_published(options, inputs);
  if (!published.ok()) warnings.push_back(published.error().message);
  return warnings;
}

}  // namespace

Result<TrainPlan> plan_training(const TrainOptions& options) {
  LORRY_TRY(check_options(options));
  LORRY_ASSIGN(Inputs inputs, open_inputs(options));
  LORRY_TRY(open_rows(inputs, options));
  LORRY_TRY(check_targets(inputs, options.max_length));
  LORRY_ASSIGN(const at::Device device, planned_device(options.device));
  LORRY_ASSIGN(const int64_t weight, bytes_of_a_weight(options, inputs.spec, device));
  LORRY_ASSIGN(const int64_t parameters,
               count_parameters(*inputs.bucket, store::model_dir(options.model)));
  const ops::WeightFormat format = base_format(options);
  LORRY_TRY(
      model::check_base_format(inputs.spec, format).with_context(store::model_dir(options.model)));
  TrainPlan plan;
  plan.micro_batch_tokens = micro_batch_tokens(inputs.spec, device);
  RunWork work;
  play(options, inputs, plan, work);

  const BaseBytes base = base_bytes(inputs.spec, parameters, weight, format);
  plan.weights_bytes = base.weights;
  plan.widened_bytes = base.widened;
  plan.fused_bytes = parameters * (inputs.spec.dtype == "float32" ? 4 : 2);
  std::optional<model::LoraConfig> lora;
  if (options.full) {
    plan.trained_parameters = parameters;
    plan.state_bytes = parameters * (weight == 4 ? kStateBytes - 4 : kFullStateBytes);
  } else {
    lora = lora_config(options);
    plan.trained_parameters = lora_parameters(inputs.spec, *lora);
    plan.state_bytes = plan.trained_parameters * kStateBytes;
    plan.adapter_bytes = plan.trained_parameters * 4;
  }
  plan.checkpoint_bytes = plan.trained_parameters * 12;  // parameter and two moments
  plan.on_gpu = device.is_cuda();
  plan.activation_bytes =
      plan.micro_batch_tokens *
      activation_bytes(inputs.spec, checkpointing_from(options.gradient_checkpointing),
                       !plan.on_gpu) *
      weight / 2;
  if (plan.on_gpu) plan.logits_bytes = logits_bytes(inputs.spec.vocab_size, device);
  plan.flops = training_flops(inputs.spec, lora, work);
  if (!plan.on_gpu && plan.checkpoint_bytes <= kMaxHostCopy)
    plan.copy_bytes = plan.checkpoint_bytes;
  const auto activations =
      static_cast<int64_t>(kActivationShare * static_cast<double>(plan.activation_bytes));
  const int64_t training = base.weights + base.widened + plan.state_bytes + plan.copy_bytes +
                           plan.logits_bytes + activations;
  plan.warnings = warnings_of(options, inputs, plan.steps);
  const int64_t checking = kCheckedLogits * kCheckTokens * inputs.spec.vocab_size * 4;
  plan.memory_bytes = kFixedBytes + std::max(training, base.checking + checking);
  return plan;
}

}  // namespace lorry::train

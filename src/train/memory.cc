#include "train/memory.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <variant>

#include "model/safetensors.h"
#include "train/checkpoint.h"
#include "train/flops.h"
#include "train/inputs.h"
#include "train/loss.h"
#include "train/merge_check.h"
#include "train/micro_batch_size.h"

namespace lorry::train {
namespace {

/// Libraries, tokens and work space of the matrix products, whatever the model.
constexpr int64_t kFixedBytes = int64_t{600} << 20;
/// What the allocator holds beside the activations themselves.
constexpr double kActivationShare = 1.2;

/// Float32 logits that the merge check has at the same time.
constexpr int64_t kCheckedLogits = 4;

/// Float32 parameter, gradient and two moments. Full training of a 16-bit model also keeps the
/// 16-bit gradient that autograd leaves.
constexpr int64_t kStateBytes = 16, kFullStateBytes = 18;

/// The part of what is free that auto plans with.
constexpr double kUsableShare = 0.9;

// ---- activations, in numbers a token
// -------------------------------------------------------------

/// What one token of a block keeps for the backward pass.
class KeptNumbers {
 public:
  KeptNumbers(const model::BlockSpec& block, int64_t hidden, bool is_light, MapForm form)
      : hidden_(hidden), is_light_(is_light && form == MapForm::kJoined), form_(form) {
    norm(block.before_attention);
    std::visit([this](const auto& spec) { attention(spec); }, block.attention);
    norm(block.before_mlp);
    std::visit([this](const auto& spec) { mlp(spec); }, block.mlp);
    for (const auto* after : {&block.after_attention, &block.after_mlp}) {
      if (after->tensor >= 0) kept_ += hidden;
    }
  }
  int64_t kept() const { return kept_; }
  /// Gradients and work space while its backward pass runs.
  int64_t working() const { return std::max(4 * widest_, 2 * attended_) + 3 * hidden_; }

 private:
  /// Its input, and what the maps after it read.
  void norm(const model::NormSpec& spec) {
    kept_ += hidden_;
    if (spec.tensor >= 0 && !is_light_) kept_ += hidden_;
  }

  void attention(const model::AttentionSpec& spec) {
    const int64_t q = spec.heads * spec.head_dim, kv = spec.kv_heads * spec.head_dim;
    attended_ = q + 2 * kv;
    kept_ += attended_ + q;
    if (spec.q_norm.tensor >= 0) kept_ += q + kv;
    if (form_ != MapForm::kJoined) kept_ += attended_;  // the parts as matrices of their own
    if (form_ == MapForm::kDropout) kept_ += 2 * (3 * hidden_ + q);
  }

  void attention(const model::MlaSpec& spec) {
    const int64_t key = spec.nope_dim + spec.rope_dim;
    attended_ = spec.heads * (2 * key + spec.value_dim);
    // Queries and keys before and after they are put together; the latent vectors count little.
    kept_ += attended_ + spec.heads * (key + spec.nope_dim + 2 * spec.value_dim) +
             (is_light_ ? 2 : 4) * spec.kv_rank;
    if (form_ == MapForm::kDropout) kept_ += 2 * (2 * hidden_ + 2 * spec.kv_rank);
  }

  void mlp(const model::MlpSpec& spec) {
    widest_ = std::max(widest_, spec.width);
    kept_ += (is_light_ ? 2 : 3) * spec.width;
    if (form_ != MapForm::kJoined) kept_ += spec.width;
    if (form_ == MapForm::kDropout) kept_ += 2 * (2 * hidden_ + spec.width);
  }

  void mlp(const model::MoeSpec& spec) {
    for (int64_t i = 0; i < spec.active; ++i) {
      mlp(spec.experts[0]);
      kept_ += 2 * hidden_;  // its rows going in and coming out
    }
    if (spec.shared) mlp(*spec.shared);
  }

  const int64_t hidden_;
  const bool is_light_;
  const MapForm form_;
  int64_t kept_ = 0, widest_ = 0, attended_ = 0;
};

// ---- weights
// -------------------------------------------------------------------------------------

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

int64_t state_bytes(const TrainOptions& options, const TrainShape& shape) {
  if (options.full) {
    return shape.parameters * (shape.number_bytes == 4 ? kStateBytes - 4 : kFullStateBytes);
  }
  return trained_parameters(options, shape) * kStateBytes;
}

}  // namespace

int64_t trained_parameters(const TrainOptions& options, const TrainShape& shape) {
  return options.full ? shape.parameters : lora_parameters(shape.spec, lora_config(options));
}

int64_t activation_numbers(const model::ModelSpec& spec, Recompute recompute, MapForm form,
                           bool inputs_on_device) {
  int64_t kept = 0, largest = 0, working = 0;
  for (const model::BlockSpec& block : spec.layers) {
    const KeptNumbers numbers(block, spec.hidden_size, recompute == Recompute::kLight, form);
    kept += numbers.kept();
    largest = std::max(largest, numbers.kept());
    working = std::max(working, numbers.working());
  }
  if (recompute == Recompute::kFull || recompute == Recompute::kOffload) {
    const bool all_inputs = recompute == Recompute::kFull || inputs_on_device;
    kept = largest + (all_inputs ? spec.num_hidden_layers() : 2) * spec.hidden_size;
  }
  constexpr int64_t kAroundTheHead = 5;  // the last norm's input and output, rows with a target
  return kept + working + kAroundTheHead * spec.hidden_size;
}

MapForm map_form(const TrainOptions& options) {
  if (options.lora_dropout > 0) return MapForm::kDropout;
  const bool is_general = options.full || options.use_dora || options.lora_bias != "none";
  return is_general ? MapForm::kGeneral : MapForm::kJoined;
}

TrainMemory training_memory(const TrainOptions& options, const TrainShape& shape,
                            Recompute recompute) {
  const bool on_gpu = shape.device.is_cuda();
  const BaseBytes base =
      base_bytes(shape.spec, shape.parameters, shape.number_bytes, base_format(options));
  TrainMemory memory;
  memory.weights_bytes = base.weights;
  memory.widened_bytes = base.widened;
  memory.state_bytes = state_bytes(options, shape);
  memory.activation_bytes = shape.pass_tokens * shape.number_bytes *
                            activation_numbers(shape.spec, recompute, map_form(options), !on_gpu);
  if (on_gpu) memory.logits_bytes = logits_bytes(shape.spec.vocab_size, shape.device);
  const int64_t checkpoint = trained_parameters(options, shape) * kCheckpointBytes;
  if (!on_gpu && checkpoint <= kMaxHostCopy) memory.copy_bytes = checkpoint;
  const auto activations =
      static_cast<int64_t>(kActivationShare * static_cast<double>(memory.activation_bytes));
  const int64_t training = base.weights + base.widened + memory.state_bytes + memory.copy_bytes +
                           memory.logits_bytes + activations;
  const int64_t checked_logits = kCheckedLogits * kCheckTokens * shape.spec.vocab_size * 4;
  memory.total_bytes = kFixedBytes + std::max(training, base.checking + checked_logits);
  return memory;
}

Recompute choose_recompute(const TrainOptions& options, const TrainShape& shape, int64_t free) {
  if (options.recompute != "auto") return recompute_from(options.recompute);
  if (free <= 0) return Recompute::kNone;
  const auto usable = static_cast<int64_t>(kUsableShare * static_cast<double>(free));
  const std::vector<Recompute> modes = recomputes(options, shape.device);
  for (const Recompute mode : modes) {
    if (training_memory(options, shape, mode).total_bytes <= usable) return mode;
  }
  return modes.back();
}

std::vector<Recompute> recomputes(const TrainOptions& options, at::Device device) {
  std::vector<Recompute> modes = {Recompute::kNone};
  if (map_form(options) == MapForm::kJoined) modes.push_back(Recompute::kLight);
  modes.push_back(Recompute::kFull);
  if (device.is_cuda()) modes.push_back(Recompute::kOffload);
  return modes;
}

int64_t largest_pass(const TrainOptions& options, const Inputs& inputs, at::Device device) {
  const Json recorded = inputs.data_info.value("longest", Json());
  int64_t longest = options.max_length;
  if (recorded.is_number_integer()) longest = std::min(longest, recorded.get<int64_t>());
  const int64_t row = options.packing ? options.max_length : longest;
  const int64_t step = options.batch_size * options.gradient_accumulation_steps * row;
  return std::min(step, std::max(micro_batch_tokens(inputs.spec, device), longest));
}

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

}  // namespace lorry::train

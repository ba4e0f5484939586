#include "train/plan.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <optional>

#include "model/transformer.h"  // check_base_format
#include "ops/device.h"
#include "store/layout.h"
#include "train/flops.h"
#include "train/inputs.h"
#include "train/memory.h"
#include "train/micro_batch_size.h"
#include "train/options.h"
#include "train/publish.h"
#include "train/rows.h"
#include "train/schedule.h"

namespace lorry::train {
namespace {

/// Where the run would take place; a GPU need not be there to be planned for.
Result<at::Device> planned_device(const std::string& name) {
  if (name.starts_with("cuda")) return at::Device(at::kCUDA);
  return ops::resolve_device(name);
}

/// Of that device, where it is here.
int64_t free_memory(const TrainOptions& options, at::Device planned) {
  const Result<at::Device> device =
      planned.is_cuda() ? ops::resolve_device(options.device) : Result<at::Device>(planned);
  return device.ok() ? ops::free_memory(*device) : 0;
}

Result<int64_t> bytes_of_a_weight(const TrainOptions& options, const model::ModelSpec& spec,
                                  at::Device device) {
  std::string dtype = options.dtype;
  if (dtype == "auto" && device.is_cuda()) dtype = "bfloat16";
  LORRY_ASSIGN(const auto type, ops::resolve_dtype(dtype, spec.dtype, at::Device(at::kCPU)));
  return int64_t{type == at::kFloat ? 4 : 2};
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

  plan.on_gpu = device.is_cuda();
  TrainShape shape{inputs.spec, device, parameters, weight, largest_pass(options, inputs, device)};
  const Recompute recompute = choose_recompute(options, shape, free_memory(options, device));
  plan.recompute = recompute_name(recompute);
  shape.pass_tokens = plan.micro_batch_tokens;
  plan.memory = training_memory(options, shape, recompute);
  for (const Recompute mode : recomputes(options, device)) {
    plan.memory_by_recompute.emplace_back(recompute_name(mode),
                                          training_memory(options, shape, mode));
  }
  plan.trained_parameters = trained_parameters(options, shape);
  if (!options.full) plan.adapter_bytes = plan.trained_parameters * 4;
  plan.checkpoint_bytes = plan.trained_parameters * kCheckpointBytes;
  plan.fused_bytes = parameters * (inputs.spec.dtype == "float32" ? 4 : 2);
  const auto lora = options.full ? std::nullopt : std::optional(lora_config(options));
  plan.flops = training_flops(inputs.spec, lora, work);
  plan.warnings = warnings_of(options, inputs, plan.steps);
  return plan;
}

}  // namespace lorry::train

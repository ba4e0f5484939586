#include "train/optimizer.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <regex>

namespace lorry::train {
namespace {

constexpr double kGrowthSteps = 2000;

std::vector<at::Tensor> zeros_like_all(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> zeros;
  for (const at::Tensor& tensor : tensors) zeros.push_back(at::zeros_like(tensor));
  return zeros;
}

/// Copies the stored tensor `name` into `to`.
Result<> restore(const model::SafetensorsReader& reader, const std::string& name, at::Tensor& to) {
  LORRY_ASSIGN(const at::Tensor stored, reader.tensor(name));
  if (stored.sizes() != to.sizes() || stored.scalar_type() != to.scalar_type()) {
    return corrupt_data(fmt::format("{} of the optimiser has another shape than the model", name));
  }
  to.copy_(stored);
  return {};
}

}  // namespace

AdamW::AdamW(std::vector<at::Tensor> params, std::vector<bool> decay, AdamWOptions options)
    : options_(options), size_(params.size()) {
  const at::NoGradGuard no_grad;
  for (const bool with_decay : {true, false}) {
    Group group;
    group.weight_decay = with_decay ? options.weight_decay : 0.0;
    for (size_t i = 0; i < params.size(); ++i) {
      if (decay[i] != with_decay) continue;
      group.members.push_back(i);
      group.params.push_back(params[i]);
      group.steps.push_back(at::zeros({}, params[i].options().requires_grad(false)));
    }
    if (group.members.empty()) continue;
    group.exp_avgs = zeros_like_all(group.params);
    group.exp_avg_sqs = zeros_like_all(group.params);
    groups_.push_back(std::move(group));
  }
}

void AdamW::step(const std::vector<at::Tensor>& grads, double learning_rate) {
  const at::NoGradGuard no_grad;
  for (Group& group : groups_) {
    std::vector<at::Tensor> group_grads;
    for (const size_t i : group.members) group_grads.push_back(grads[i]);
    for (at::Tensor& step : group.steps) step.add_(1);
    at::_fused_adamw_(group.params, group_grads, group.exp_avgs, group.exp_avg_sqs, {}, group.steps,
                      learning_rate, options_.beta1, options_.beta2, group.weight_decay,
                      options_.epsilon, /*amsgrad=*/false, /*maximize=*/false);
  }
}

model::NamedTensors AdamW::state(const std::vector<std::string>& names) const {
  model::NamedTensors tensors(3 * size_);
  for (const Group& group : groups_) {
    for (size_t k = 0; k < group.members.size(); ++k) {
      const size_t i = group.members[k];
      tensors[3 * i] = {"exp_avg." + names[i], group.exp_avgs[k]};
      tensors[3 * i + 1] = {"exp_avg_sq." + names[i], group.exp_avg_sqs[k]};
      tensors[3 * i + 2] = {"step." + names[i], group.steps[k]};
    }
  }
  return tensors;
}

Result<> AdamW::load_state(const model::SafetensorsReader& reader,
                           const std::vector<std::string>& names) {
  const at::NoGradGuard no_grad;
  for (Group& group : groups_) {
    for (size_t k = 0; k < group.members.size(); ++k) {
      const std::string& name = names[group.members[k]];
      LORRY_TRY(restore(reader, "exp_avg." + name, group.exp_avgs[k]));
      LORRY_TRY(restore(reader, "exp_avg_sq." + name, group.exp_avg_sqs[k]));
      LORRY_TRY(restore(reader, "step." + name, group.steps[k]));
    }
  }
  return {};
}

bool has_weight_decay(const std::string& name) {
  static const std::regex without(R"(bias|layernorm|rmsnorm|(^|\.)norm($|\.)|_norm($|\.))",
                                  std::regex::icase);
  return !std::regex_search(name, without);
}

double grad_norm(const std::vector<at::Tensor>& grads) {
  const at::NoGradGuard no_grad;
  if (grads.empty()) return 0;
  return at::linalg_vector_norm(at::stack(at::_foreach_norm(grads))).item<double>();
}

void clip_grads(const std::vector<at::Tensor>& grads, double norm, double max_norm) {
  const at::NoGradGuard no_grad;
  // In float32, as torch computes the coefficient.
  const float factor = static_cast<float>(max_norm) / (static_cast<float>(norm) + 1e-6f);
  if (factor < 1.0f) at::_foreach_mul_(grads, static_cast<double>(factor));
}

void GradScaler::update(bool overflowed) {
  if (!enabled_) return;
  if (overflowed) {
    scale_ *= 0.5;
    good_steps_ = 0;
  } else if (++good_steps_ == kGrowthSteps) {
    scale_ *= 2;
    good_steps_ = 0;
  }
}

}  // namespace lorry::train

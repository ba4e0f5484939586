#include "train/optimizer.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <regex>

namespace lorry::train {
namespace {

constexpr double kGrowthSteps = 2000;

/// Copies the stored tensor `name` into `to`.
Result<> restore(const model::SafetensorsReader& reader, const std::string& name, at::Tensor to) {
  LORRY_ASSIGN(const at::Tensor stored, reader.tensor(name));
  if (stored.sizes() != to.sizes() || stored.scalar_type() != to.scalar_type()) {
    return corrupt_data(fmt::format("{} of the optimiser has another shape than the model", name));
  }
  to.copy_(stored);
  return {};
}

}  // namespace

AdamW::AdamW(const Trainable& trainable, AdamWOptions options)
    : trainable_(trainable), options_(options) {
  const at::NoGradGuard no_grad;
  const at::Tensor& params = trainable.flat_params();
  if (!params.defined()) return;
  exp_avg_ = at::zeros_like(params);
  exp_avg_sq_ = at::zeros_like(params);
  steps_ = at::zeros({}, params.options());
}

void AdamW::step(double learning_rate, const at::Tensor& divisor, const at::Tensor& skip) {
  const at::NoGradGuard no_grad;
  const at::Tensor &params = trainable_.flat_params(), &grads = trainable_.flat_grads();
  if (!params.defined()) return;
  skip.defined() ? steps_.add_(1 - skip) : steps_.add_(1);
  const auto optional = [](const at::Tensor& x) {
    return x.defined() ? std::optional(x) : std::nullopt;
  };
  const auto update = [&](int64_t begin, int64_t end, double weight_decay) {
    if (begin == end) return;
    const auto of = [&](const at::Tensor& x) {
      return std::vector<at::Tensor>{x.narrow(0, begin, end - begin)};
    };
    at::_fused_adamw_(of(params), of(grads), of(exp_avg_), of(exp_avg_sq_), {}, {steps_},
                      learning_rate, options_.beta1, options_.beta2, weight_decay, options_.epsilon,
                      /*amsgrad=*/false, /*maximize=*/false, optional(divisor), optional(skip));
  };
  const int64_t decayed = trainable_.decayed_numbers();
  update(0, decayed, options_.weight_decay);
  update(decayed, trainable_.size(), 0.0);
}

model::NamedTensors AdamW::state() const {
  model::NamedTensors tensors;
  for (size_t i = 0; i < trainable_.names().size(); ++i) {
    const std::string& name = trainable_.names()[i];
    tensors.emplace_back("exp_avg." + name, trainable_.part(exp_avg_, i));
    tensors.emplace_back("exp_avg_sq." + name, trainable_.part(exp_avg_sq_, i));
    tensors.emplace_back("step." + name, steps_);
  }
  return tensors;
}

Result<> AdamW::load_state(const model::SafetensorsReader& reader) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < trainable_.names().size(); ++i) {
    const std::string& name = trainable_.names()[i];
    LORRY_TRY(restore(reader, "exp_avg." + name, trainable_.part(exp_avg_, i)));
    LORRY_TRY(restore(reader, "exp_avg_sq." + name, trainable_.part(exp_avg_sq_, i)));
    LORRY_TRY(restore(reader, "step." + name, steps_));  // the same of all
  }
  return {};
}

bool has_weight_decay(const std::string& name) {
  static const std::regex without(R"(bias|layernorm|rmsnorm|(^|\.)norm($|\.)|_norm($|\.))",
                                  std::regex::icase);
  return !std::regex_search(name, without);
}

at::Tensor grad_norm(const at::Tensor& flat_grads) {
  const at::NoGradGuard no_grad;
  // Row by row, so that no float32 sum has millions of terms.
  return at::linalg_vector_norm(
      at::linalg_vector_norm(flat_grads.view({-1, Trainable::kFlatRow}), 2, at::IntArrayRef{1}));
}

at::Tensor clip_divisor(const at::Tensor& norm, double max_norm) {
  const at::NoGradGuard no_grad;
  return ((norm + 1e-6) / max_norm).clamp_min(1);
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

// Formulas follow `transformers` modeling_rope_utils.py step by step in float32, so that logits
// agree.
#include "model/rope.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace lorry::model {
namespace {

at::Tensor even_exponents(int64_t head_dim) {
  return at::arange(0, head_dim, 2, at::kLong).to(at::kFloat) / static_cast<double>(head_dim);
}

/// Long wavelengths are stretched by `factor`, short ones kept, those between interpolated.
at::Tensor llama3(const RopeSpec& rope, const at::Tensor& inv_freq) {
  const auto context = static_cast<double>(rope.original_max_position_embeddings);
  const double low_wavelength = context / rope.low_freq_factor;
  const double high_wavelength = context / rope.high_freq_factor;
  const at::Tensor wavelength = 2 * std::numbers::pi / inv_freq;
  const at::Tensor stretched =
      at::where(wavelength > low_wavelength, inv_freq / rope.factor, inv_freq);
  const at::Tensor smooth = (context / wavelength - rope.low_freq_factor) /
                            (rope.high_freq_factor - rope.low_freq_factor);
  const at::Tensor smoothed = (1 - smooth) * stretched / rope.factor + smooth * stretched;
  const at::Tensor medium =
      at::logical_not(wavelength < high_wavelength) * at::logical_not(wavelength > low_wavelength);
  return at::where(medium, smoothed, stretched);
}

double yarn_attention_scale(const RopeSpec& rope) {
  const auto mscale = [&](double weight) {
    return rope.factor <= 1 ? 1.0 : 0.1 * weight * std::log(rope.factor) + 1.0;
  };
  if (rope.attention_factor) return *rope.attention_factor;
  if (rope.mscale.value_or(0) != 0 && rope.mscale_all_dim.value_or(0) != 0) {
    return mscale(*rope.mscale) / mscale(*rope.mscale_all_dim);
  }
  return mscale(1.0);
}

/// Peng et al. 2023, arXiv:2309.00071: dimensions that turn often are kept, slow ones stretched.
at::Tensor yarn(const RopeSpec& rope, int64_t head_dim) {
  const auto dim = static_cast<double>(head_dim);
  const auto correction_dim = [&](double rotations) {
    return dim *
           std::log(static_cast<double>(rope.original_max_position_embeddings) /
                    (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  double low = correction_dim(rope.beta_fast == 0 ? 32.0 : rope.beta_fast);
  double high = correction_dim(rope.beta_slow == 0 ? 1.0 : rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;

  const at::Tensor pos_freqs = at::pow(rope.theta, even_exponents(head_dim));
  const at::Tensor extrapolation = 1.0 / pos_freqs;
  const at::Tensor interpolation = 1.0 / (rope.factor * pos_freqs);
  const at::Tensor ramp =
      at::clamp((at::arange(head_dim / 2, at::kFloat) - low) / (high - low), 0, 1);
  const at::Tensor keep = 1 - ramp;
  return interpolation * (1 - keep) + extrapolation * keep;
}

/// Ding et al. 2024, arXiv:2402.13753: every frequency has a divisor of its own.
at::Tensor longrope(const RopeSpec& rope, const std::vector<double>& divisors) {
  const at::Tensor factors = at::tensor(divisors, at::kFloat);
  return 1.0 / (factors * at::pow(rope.theta, even_exponents(rope.dim)));
}

double longrope_attention_scale(const RopeSpec& rope) {
  if (rope.attention_factor) return *rope.attention_factor;
  const auto original = static_cast<double>(rope.original_max_position_embeddings);
  return rope.factor <= 1 ? 1.0 : std::sqrt(1 + std::log(rope.factor) / std::log(original));
}

}  // namespace

RopeFrequencies RopeFrequencies::to(at::Device device) const {
  RopeFrequencies moved = *this;
  moved.inv_freq = inv_freq.to(device);
  if (long_inv_freq.defined()) moved.long_inv_freq = long_inv_freq.to(device);
  return moved;
}

RopeFrequencies rope_frequencies(const RopeSpec& rope) {
  const at::NoGradGuard no_grad;
  using Type = RopeSpec::Type;
  RopeFrequencies result;
  result.query_scale_beta = rope.query_scale_beta;
  result.query_scale_places = std::max<int64_t>(1, rope.original_max_position_embeddings);
  if (rope.type == Type::kYarn) {
    result.inv_freq = yarn(rope, rope.dim);
    result.attention_scale = yarn_attention_scale(rope);
  } else if (rope.type == Type::kLongRope) {
    result.inv_freq = longrope(rope, rope.short_factor);
    result.long_inv_freq = longrope(rope, rope.long_factor);
    result.long_from = rope.original_max_position_embeddings;
    result.attention_scale = longrope_attention_scale(rope);
  } else {
    result.inv_freq = 1.0 / at::pow(rope.theta, even_exponents(rope.dim));
    if (rope.type == Type::kLinear) result.inv_freq = result.inv_freq / rope.factor;
    if (rope.type == Type::kLlama3) result.inv_freq = llama3(rope, result.inv_freq);
  }
  return result;
}

RopeAngles rope_angles(const at::Tensor& positions, const at::Tensor& context_lengths,
                       const RopeFrequencies& rope, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const at::Tensor places = positions.to(at::kFloat).unsqueeze(-1);
  at::Tensor angles = places * rope.inv_freq;  // (T, R/2)
  if (rope.long_inv_freq.defined()) {
    const at::Tensor is_long = (context_lengths > rope.long_from).unsqueeze(-1);
    angles = at::where(is_long, places * rope.long_inv_freq, angles);
  }
  const auto finish = [&](at::Tensor x) {
    if (rope.attention_scale != 1.0) x = x * rope.attention_scale;
    return x.to(dtype).unsqueeze(1);
  };
  RopeAngles result{finish(angles.cos()), finish(angles.sin()), {}};
  if (rope.query_scale_beta != 0) {
    const at::Tensor turns = (positions / rope.query_scale_places).floor();
    result.query_scale =
        (1 + rope.query_scale_beta * at::log(1 + turns)).to(dtype).view({-1, 1, 1});
  }
  return result;
}

}  // namespace lorry::model

#include "generate/sampling.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <unordered_map>
#include <vector>

namespace lorry::generate {
namespace {

/// Uniform in [0, 1), the same on every machine (std's distributions are not).
double uniform(std::mt19937_64& rng) { return static_cast<double>(rng() >> 11) * 0x1.0p-53; }

std::vector<float> to_floats(const at::Tensor& logits) {
  const at::Tensor flat = logits.detach().to(at::kCPU, at::kFloat).contiguous();
  const float* data = flat.const_data_ptr<float>();
  return {data, data + flat.numel()};
}

int32_t argmax(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

double log_sum_exp(const std::vector<float>& logits) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - top);
  return top + std::log(sum);
}

bool has_penalties(const SamplingParams& params) {
  return params.repetition_penalty != 1.0 || params.frequency_penalty != 0.0 ||
         params.presence_penalty != 0.0;
}

void apply_penalties(std::vector<float>& logits, const SamplingParams& params,
                     const TokenHistory& history) {
  std::unordered_map<int32_t, int64_t> output_counts, seen;
  const auto vocab = static_cast<int32_t>(logits.size());
  for (const int32_t id : history.prompt) {
    if (id >= 0 && id < vocab) seen.try_emplace(id);
  }
  for (const int32_t id : history.output) {
    if (id < 0 || id >= vocab) continue;
    seen.try_emplace(id);
    ++output_counts[id];
  }
  const auto penalty = static_cast<float>(params.repetition_penalty);
  for (const auto& [id, unused] : seen) {
    logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
  }
  for (const auto& [id, count] : output_counts) {
    logits[id] -= static_cast<float>(params.frequency_penalty * static_cast<double>(count) +
                                     params.presence_penalty);
  }
}

/// Ids in order of falling logit, sorted only as far as they are asked for.
class Ranking {
 public:
  explicit Ranking(const std::vector<float>& logits) : logits_(logits), ids_(logits.size()) {
    std::iota(ids_.begin(), ids_.end(), 0);
  }
  int32_t operator[](size_t rank) {
    while (rank >= sorted_) extend();
    return ids_[rank];
  }

 private:
  void extend() {
    const size_t next = std::min(ids_.size(), std::max<size_t>(64, sorted_ * 4));
    const auto better = [&](int32_t a, int32_t b) {
      return logits_[a] != logits_[b] ? logits_[a] > logits_[b] : a < b;
    };
    std::partial_sort(ids_.begin() + sorted_, ids_.begin() + next, ids_.end(), better);
    sorted_ = next;
  }
  const std::vector<float>& logits_;
  std::vector<int32_t> ids_;
  size_t sorted_ = 0;
};

/// How many of the likeliest tokens stay. `weights(i)` is exp(logit - top) of rank i.
template <typename Weight>
size_t count_kept(const SamplingParams& params, size_t vocab, double total, const Weight& weight) {
  size_t kept = vocab;
  if (params.top_k > 0) kept = std::min(kept, static_cast<size_t>(params.top_k));
  if (params.min_p > 0) {
    size_t n = 1;
    while (n < kept && weight(n) >= params.min_p) ++n;
    kept = n;
  }
  if (params.top_p < 1) {
    // top_p is a share of what the cuts before it left.
    if (kept < vocab) {
      total = 0;
      for (size_t i = 0; i < kept; ++i) total += weight(i);
    }
    size_t n = 1;
    double mass = weight(0);
    while (n < kept && mass < params.top_p * total) mass += weight(n++);
    kept = n;
  }
  return kept;
}

int32_t draw_from_all(const std::vector<double>& weights, double total, std::mt19937_64& rng) {
  const double target = uniform(rng) * total;
  double mass = 0;
  int32_t last = 0;
  for (size_t id = 0; id < weights.size(); ++id) {
    if (weights[id] <= 0) continue;
    mass += weights[id];
    last = static_cast<int32_t>(id);
    if (mass > target) break;
  }
  return last;
}

int32_t draw(const std::vector<float>& logits, const SamplingParams& params, std::mt19937_64& rng) {
  const float top = *std::max_element(logits.begin(), logits.end());
  std::vector<double> weights(logits.size());
  double total = 0;
  for (size_t id = 0; id < logits.size(); ++id) {
    weights[id] = std::exp((static_cast<double>(logits[id]) - top) / params.temperature);
    total += weights[id];
  }
  if (params.top_k <= 0 && params.min_p <= 0 && params.top_p >= 1) {
    return draw_from_all(weights, total, rng);
  }
  Ranking ranking(logits);
  const auto weight = [&](size_t rank) { return weights[ranking[rank]]; };
  const size_t kept = count_kept(params, logits.size(), total, weight);
  double kept_total = 0;
  for (size_t i = 0; i < kept; ++i) kept_total += weight(i);
  const double target = uniform(rng) * kept_total;
  double mass = 0;
  for (size_t i = 0; i < kept; ++i) {
    mass += weight(i);
    if (mass > target) return ranking[i];
  }
  return ranking[kept - 1];
}

/// A logit that is not a number never wins and never poisons a sum.
void clean(std::vector<float>& logits) {
  for (float& logit : logits) {
    if (std::isnan(logit)) logit = -std::numeric_limits<float>::infinity();
    if (logit == std::numeric_limits<float>::infinity()) logit = std::numeric_limits<float>::max();
  }
}

}  // namespace

Sample sample(const at::Tensor& logits, const SamplingParams& params, std::mt19937_64& rng,
              const TokenHistory& history) {
  std::vector<float> values = to_floats(logits);
  clean(values);
  const double norm = log_sum_exp(values);
  const bool greedy = params.temperature <= 0 || params.top_k == 1;
  Sample result;
  if (!has_penalties(params)) {
    result.id = greedy ? argmax(values) : draw(values, params, rng);
    result.logprob = static_cast<float>(values[result.id] - norm);
    return result;
  }
  std::vector<float> penalised = values;
  apply_penalties(penalised, params, history);
  result.id = greedy ? argmax(penalised) : draw(penalised, params, rng);
  result.logprob = static_cast<float>(values[result.id] - norm);
  return result;
}

}  // namespace lorry::generate

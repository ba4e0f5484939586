#include "generate/row_sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace lorry::generate {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Uniform in [0, 1), the same on every machine (std's distributions are not).
double uniform(std::mt19937_64& rng) { return static_cast<double>(rng() >> 11) * 0x1.0p-53; }

bool has_penalties(const SamplingParams& params) {
  return params.repetition_penalty != 1.0 || params.frequency_penalty != 0.0 ||
         params.presence_penalty != 0.0;
}

double weight_of(float logit, float top, double temperature) {
  return std::exp((static_cast<double>(logit) - top) / temperature);
}

/// Candidates in the order of sampling, sorted only as far as they are asked for, and their
/// weights.
class Ranking {
 public:
  Ranking(std::vector<Candidate>& candidates, std::vector<double>& weights, float top,
          double temperature)
      : candidates_(candidates), weights_(weights), top_(top), temperature_(temperature) {
    weights_.clear();
  }
  size_t size() const { return candidates_.size(); }
  int32_t id(size_t rank) const { return candidates_[rank].id; }
  double weight(size_t rank) {
    while (weights_.size() <= rank) extend();
    return weights_[rank];
  }

 private:
  void extend() {
    const size_t begin = weights_.size();
    const size_t end = std::min(size(), std::max<size_t>(64, begin * 4));
    const auto at = [&](size_t i) { return candidates_.begin() + static_cast<ptrdiff_t>(i); };
    // Selection, then a sort of what was selected: much cheaper than a heap where thousands stay.
    if (end < size()) std::nth_element(at(begin), at(end), candidates_.end());
    std::sort(at(begin), at(end));
    for (size_t i = begin; i < end; ++i) {
      weights_.push_back(weight_of(candidates_[i].logit, top_, temperature_));
    }
  }

  std::vector<Candidate>& candidates_;
  std::vector<double>& weights_;  // of the ranks that are sorted
  float top_;
  double temperature_;
};

/// How many of the likeliest tokens stay.
size_t count_kept(const SamplingParams& params, double total, Ranking& ranking) {
  size_t kept = ranking.size();
  if (params.top_k > 0) kept = std::min(kept, static_cast<size_t>(params.top_k));
  if (params.min_p > 0) {
    size_t n = 1;
    while (n < kept && ranking.weight(n) >= params.min_p) ++n;
    kept = n;
  }
  if (params.top_p >= 1) return kept;
  // top_p is a share of what the cuts before it left.
  if (total == kNotSummed) {
    total = 0;
    for (size_t i = 0; i < kept; ++i) total += ranking.weight(i);
  }
  size_t n = 1;
  double mass = ranking.weight(0);
  while (n < kept && mass < params.top_p * total) mass += ranking.weight(n++);
  return n;
}

/// The float32 just below x, a little further where x came of a rounded logarithm.
float below(double x) { return static_cast<float>(x - 1e-6 * (1 + std::fabs(x))); }

float clean(float logit) {
  if (std::isnan(logit)) return -kInfinity;
  return std::min(logit, std::numeric_limits<float>::max());
}

}  // namespace

TokenEvent no_logit() {
  TokenEvent event;
  event.finish = FinishReason::kError;
  event.error =
      "no logit is a number: the model's weights hold NaN, or its arithmetic overflowed "
      "(--dtype float32 tells which)";
  return event;
}

bool is_greedy(const SamplingParams& params) {
  return params.temperature <= 0 || params.top_k == 1;
}

bool has_edits(const SequenceRequest& request) {
  return has_penalties(request.sampling) || !request.logit_bias.empty();
}

int32_t draw_candidate(const SamplingParams& params, std::mt19937_64& rng, float top, double total,
                       std::vector<Candidate>& candidates, std::vector<double>& weights) {
  Ranking ranking(candidates, weights, top, params.temperature);
  const size_t kept = count_kept(params, total, ranking);
  double kept_total = 0;
  for (size_t i = 0; i < kept; ++i) kept_total += ranking.weight(i);
  const double target = uniform(rng) * kept_total;
  double mass = 0;
  for (size_t i = 0; i < kept; ++i) {
    mass += ranking.weight(i);
    if (mass > target) return ranking.id(i);
  }
  return ranking.id(kept - 1);
}

TokenEvent RowSampler::sample(const LogitRow& logits, const SamplingRow& row) {
  const SequenceRequest& request = *row.request;
  const bool edits = has_edits(request);
  LogitRow view = edits ? edited(logits, row) : logits;
  float top = block_maxima(view, maxima_);
  if (top == kInfinity) {
    copy_clean(view, copy_);
    view = {copy_.data(), nullptr, logits.size};
    top = block_maxima(view, maxima_);
  }
  if (top == -kInfinity) return no_logit();
  TokenEvent event;
  total_ = kNotSummed;
  const bool greedy = is_greedy(request.sampling);
  event.id = greedy ? first_at(view, maxima_, top) : draw(view, top, request.sampling, *row.rng);
  if (request.top_logprobs < 0) return event;
  if (edits) {
    view = logits;
    top = block_maxima(view, maxima_);
    total_ = kNotSummed;
  }
  const bool summed = total_ != kNotSummed && request.sampling.temperature == 1;
  add_logprobs(view, summed ? total_ : exp_sums(view, top, 1.0, sums_), request.top_logprobs,
               event);
  return event;
}

TokenScore RowSampler::score(const LogitRow& logits, int32_t id, int64_t count) {
  TokenScore out{id, std::numeric_limits<float>::quiet_NaN(), {}};
  LogitRow view = logits;
  float top = block_maxima(view, maxima_);
  if (top == kInfinity) {
    copy_clean(view, copy_);
    view = {copy_.data(), nullptr, logits.size};
    top = block_maxima(view, maxima_);
  }
  if (top != -kInfinity) add_logprobs(view, exp_sums(view, top, 1.0, sums_), count, out);
  return out;
}

LogitRow RowSampler::edited(const LogitRow& logits, const SamplingRow& row) {
  copy_clean(logits, copy_);
  for (const auto& [id, bias] : row.request->logit_bias) {
    if (id >= 0 && id < logits.size) copy_[id] = clean(copy_[id] + bias);
  }
  if (has_penalties(row.request->sampling)) apply_penalties(row);
  return {copy_.data(), nullptr, logits.size};
}

/// repetition_penalty counts prompt and answer, as `transformers` and vLLM do; frequency_penalty
/// and presence_penalty the answer alone, as the OpenAI API does.
void RowSampler::apply_penalties(const SamplingRow& row) {
  const SamplingParams& params = row.request->sampling;
  const size_t prompt = row.request->prompt.size();
  counts_.resize(copy_.size());
  const auto vocab = static_cast<int32_t>(copy_.size());
  for (size_t i = 0; i < row.tokens.size(); ++i) {
    const int32_t id = row.tokens[i];
    if (id < 0 || id >= vocab) continue;
    if (counts_[id] == 0) {
      counts_[id] = 1;
      touched_.push_back(id);
    }
    if (i >= prompt) ++counts_[id];
  }
  const auto penalty = static_cast<float>(params.repetition_penalty);
  for (const int32_t id : touched_) {
    float& logit = copy_[id];
    logit = logit > 0 ? logit / penalty : logit * penalty;
    const int32_t generated = counts_[id] - 1;
    if (generated > 0) {
      logit -= static_cast<float>(params.frequency_penalty * generated + params.presence_penalty);
    }
    counts_[id] = 0;
  }
  touched_.clear();
}

float RowSampler::reached_by(int64_t count) {
  if (count > static_cast<int64_t>(maxima_.size())) return -kInfinity;
  ranked_ = maxima_;
  const auto at = ranked_.begin() + (count - 1);
  std::nth_element(ranked_.begin(), at, ranked_.end(), std::greater<>());
  return *at;
}

int32_t RowSampler::draw(const LogitRow& logits, float top, const SamplingParams& params,
                         std::mt19937_64& rng) {
  if (params.top_k <= 0 && params.min_p <= 0 && params.top_p >= 1) {
    return draw_from_all(logits, top, params.temperature, rng);
  }
  const bool cuts_k = params.top_k > 0 && params.top_k < logits.size;
  float threshold = cuts_k ? reached_by(params.top_k) : -kInfinity;
  if (params.min_p > 0) {
    threshold = std::max(threshold, below(top + params.temperature * std::log(params.min_p)));
  } else if (params.top_p < 1 && !cuts_k) {
    total_ = exp_sums(logits, top, params.temperature, sums_);
    // Tokens below this weight have less than 1 - top_p between them, however many there are, so
    // none of them is needed for top_p. The half is for rounding.
    const double least = 0.5 * (1 - params.top_p) * total_ / static_cast<double>(logits.size);
    threshold = below(top + params.temperature * std::log(least));
  }
  candidates_.clear();
  gather_above(logits, maxima_, std::min(threshold, top), candidates_);
  return draw_candidate(params, rng, top, total_, candidates_, weights_);
}

int32_t RowSampler::draw_from_all(const LogitRow& logits, float top, double temperature,
                                  std::mt19937_64& rng) {
  total_ = exp_sums(logits, top, temperature, sums_);
  const double target = uniform(rng) * total_;
  double mass = 0;
  int32_t last = 0;
  for (size_t block = 0; block < sums_.size(); ++block) {
    // The last block is read whatever the sums say: rounding may leave the target just above them.
    if (mass + sums_[block] <= target && block + 1 < sums_.size()) {
      mass += sums_[block];
      continue;
    }
    const int64_t begin = static_cast<int64_t>(block) * kSumBlock;
    double within = mass;
    for (int64_t id = begin; id < std::min(begin + kSumBlock, logits.size); ++id) {
      const double weight = weight_of(logits[id], top, temperature);
      if (!(weight > 0)) continue;
      last = static_cast<int32_t>(id);
      within += weight;
      if (within > target) return last;
    }
    mass += sums_[block];
  }
  return last;
}

void RowSampler::add_logprobs(const LogitRow& logits, double sum, int64_t count,
                              TokenScore& score) {
  const double norm = *std::max_element(maxima_.begin(), maxima_.end()) + std::log(sum);
  score.logprob = static_cast<float>(clean(logits[score.id]) - norm);
  const int64_t k = std::min(count, logits.size);
  if (k == 0) return;
  candidates_.clear();
  gather_above(logits, maxima_, reached_by(k), candidates_);
  const auto kept = std::min<int64_t>(k, static_cast<int64_t>(candidates_.size()));
  std::partial_sort(candidates_.begin(), candidates_.begin() + kept, candidates_.end());
  for (int64_t i = 0; i < kept; ++i) {
    score.top.push_back({candidates_[i].id, static_cast<float>(candidates_[i].logit - norm)});
  }
}

}  // namespace lorry::generate

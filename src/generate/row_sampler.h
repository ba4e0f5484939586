// One row of logits on the CPU to one token.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "generate/generation.h"
#include "generate/logit_kernels.h"

namespace lorry::generate {

/// What sampling needs to know of one sequence.
struct SamplingRow {
  const SequenceRequest* request;
  std::span<const int32_t> tokens;  ///< prompt and what was generated
  std::mt19937_64* rng;             ///< one number is drawn from it unless the row is greedy
  /// If not -1: the next row is the same sequence's, with this token after `tokens`. It counts only
  /// where this row gives that token.
  int32_t draft = -1;
};

/// The likeliest token whatever the seed.
/// What a row gives in which every logit is NaN or -inf: an error, not a token.
TokenEvent no_logit();

bool is_greedy(const SamplingParams& params);
/// Whether penalties or a bias change the logits before the choice.
bool has_edits(const SequenceRequest& request);

inline constexpr double kNotSummed = -1;

/// The token that `params` and the next number of `rng` choose among `candidates`, which hold all
/// that top_k and min_p could keep and, with top_p, enough for its share. `top`: the largest logit.
/// `total`: exp((logit - top) / temperature) summed over the vocabulary, for top_p where neither
/// top_k nor min_p cuts, else kNotSummed. Reorders the candidates; `weights` is scratch memory.
int32_t draw_candidate(const SamplingParams& params, std::mt19937_64& rng, float top, double total,
                       std::vector<Candidate>& candidates, std::vector<double>& weights);

/// Samples row after row; holds the scratch memory of one thread. Not thread-safe.
///
/// The token depends on the row's logits, its request, its history and its generator alone. Passes
/// over the vocabulary: one for the largest logits; one of exponentials where top_p stands alone or
/// nothing cuts; one copy where penalties or a bias change the row; one of exponentials for
/// log-probabilities, unless the first was at temperature 1.
class RowSampler {
 public:
  /// Fills id, logprob and top. Order, as in vLLM: bias, penalties, temperature, min_p, top_k,
  /// top_p.
  TokenEvent sample(const LogitRow& logits, const SamplingRow& row);
  /// The log-probability of `id` and the `count` likeliest tokens; NaN if no logit is a number.
  TokenScore score(const LogitRow& logits, int32_t id, int64_t count);

 private:
  LogitRow edited(const LogitRow& logits, const SamplingRow& row);
  void apply_penalties(const SamplingRow& row);
  int32_t draw(const LogitRow& logits, float top, const SamplingParams& params,
               std::mt19937_64& rng);
  int32_t draw_from_all(const LogitRow& logits, float top, double temperature,
                        std::mt19937_64& rng);
  /// A logit that at least `count` others reach; -inf if the maxima cannot tell.
  float reached_by(int64_t count);
  /// `sum`: exp(logit - largest) over the vocabulary.
  void add_logprobs(const LogitRow& logits, double sum, int64_t count, TokenScore& score);

  std::vector<float> copy_;    // the row where it was changed
  std::vector<float> maxima_;  // of the row in hand
  std::vector<float> ranked_;  // maxima, for selection
  std::vector<double> sums_;   // exp_sums' blocks
  double total_ = kNotSummed;  // exp((logit - top) / temperature) of the row in hand
  std::vector<Candidate> candidates_;
  std::vector<double> weights_;
  std::vector<int32_t> counts_;   // by id: 0, or 1 + how often it was generated
  std::vector<int32_t> touched_;  // ids whose count is not 0
};

}  // namespace lorry::generate

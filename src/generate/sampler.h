// From a batch of logits to one event for each sequence.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "generate/generation.h"
#include "generate/row_sampler.h"

namespace lorry::generate {

/// logits: (R, vocab_size), any float dtype and device, one row for each of `rows`; not changed.
/// Fills id, logprob and top; rows go to all threads. The same seed, logits and history give the
/// same token, whatever else is in the batch and however many threads there are.
///
/// A row that does not count, since a row before it did not give its `draft`, is not sampled: its
/// event has no id. To draw a token and keep on if it is the draft is speculative sampling
/// (Leviathan et al. 2023, arXiv:2211.17192) for a draft that is certain of itself: the draft is
/// accepted with the probability that the model gives it, and what is drawn instead has the others'
/// distribution.
///
/// On a GPU, greedy rows and those of a small top_k are reduced there; of other rows all logits are
/// copied to the host.
std::vector<TokenEvent> sample_rows(const at::Tensor& logits, std::span<const SamplingRow> rows);

/// A row whose next token is known.
struct ScoringRow {
  int32_t id = 0;
  int64_t top_logprobs = 0;
};
/// logits: as above. The log-probability of each row's token and the likeliest ones. It is NaN
/// where no logit of the row is a number. A GPU reduces the rows itself.
std::vector<TokenScore> score_rows(const at::Tensor& logits, std::span<const ScoringRow> rows);

namespace detail {
/// Both as on a GPU, for tests on any device.
std::vector<TokenEvent> sample_rows_reduced(const at::Tensor& logits,
                                            std::span<const SamplingRow> rows);
std::vector<TokenScore> score_rows_reduced(const at::Tensor& logits,
                                           std::span<const ScoringRow> rows);
}  // namespace detail

}  // namespace lorry::generate

#include "serve/sampler.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

namespace lorry::serve {
namespace {

bool changes_logits(const SequenceRequest& request) {
  const auto& p = request.sampling;
  return p.repetition_penalty != 1.0 || p.frequency_penalty != 0 || p.presence_penalty != 0 ||
         !request.logit_bias.empty();
}

bool plain_greedy(const SequenceRequest& request) {
  return request.sampling.temperature == 0 && request.top_logprobs < 0 && !changes_logits(request);
}

/// logits: V floats, changed in place.
void apply_penalties(float* logits, int64_t vocab_size, const SamplingRow& row) {
  const auto& params = row.request->sampling;
  const auto in_range = [&](int32_t id) { return id >= 0 && id < vocab_size; };
  if (params.repetition_penalty != 1.0) {
    const float penalty = static_cast<float>(params.repetition_penalty);
    const std::unordered_set<int32_t> seen(row.tokens.begin(), row.tokens.end());
    for (int32_t id : seen) {
      if (in_range(id)) logits[id] = logits[id] < 0 ? logits[id] * penalty : logits[id] / penalty;
    }
  }
  if (params.frequency_penalty != 0 || params.presence_penalty != 0) {
    std::unordered_map<int32_t, int> counts;
    for (int32_t id : row.tokens.subspan(row.request->prompt.size())) ++counts[id];
    for (const auto& [id, count] : counts) {
      if (!in_range(id)) continue;
      logits[id] -= static_cast<float>(params.frequency_penalty * count + params.presence_penalty);
    }
  }
  for (const auto& [id, bias] : row.request->logit_bias) {
    if (in_range(id)) logits[id] += bias;
  }
}

/// logits: (V) float32 on the CPU.
TokenEvent sample_row(at::Tensor logits, const SamplingRow& row) {
  const SequenceRequest& request = *row.request;
  at::Tensor logprobs;
  if (request.top_logprobs >= 0) logprobs = at::log_softmax(logits, 0);
  if (changes_logits(request)) {
    logits = logits.clone();
    apply_penalties(logits.data_ptr<float>(), logits.size(0), row);
  }
  TokenEvent event;
  event.id = request.sampling.temperature == 0
                 ? static_cast<int32_t>(logits.argmax().item<int64_t>())
                 : model::sample(logits, request.sampling, *row.rng).id;
  if (request.top_logprobs < 0) return event;
  event.logprob = logprobs.data_ptr<float>()[event.id];
  const int64_t k = std::min<int64_t>(request.top_logprobs, logprobs.size(0));
  const auto [values, ids] = logprobs.topk(k);
  for (int64_t i = 0; i < k; ++i) {
    event.top.push_back(
        {static_cast<int32_t>(ids.data_ptr<int64_t>()[i]), values.data_ptr<float>()[i]});
  }
  return event;
}

}  // namespace

std::vector<TokenEvent> sample_rows(const at::Tensor& logits, std::span<const SamplingRow> rows) {
  std::vector<TokenEvent> events(rows.size());
  const bool any_greedy = std::any_of(rows.begin(), rows.end(),
                                      [](const auto& row) { return plain_greedy(*row.request); });
  at::Tensor greedy;  // (R) int64
  if (any_greedy) greedy = logits.argmax(-1).to(at::kCPU);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (plain_greedy(*rows[i].request)) {
      events[i].id = static_cast<int32_t>(greedy.data_ptr<int64_t>()[i]);
    } else {
      const at::Tensor row = logits[static_cast<int64_t>(i)];
      events[i] = sample_row(row.to(at::kCPU, at::kFloat).contiguous(), rows[i]);
    }
  }
  return events;
}

}  // namespace lorry::serve

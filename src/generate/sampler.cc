#include "generate/sampler.h"

#include <ATen/Functions.h>

#include <algorithm>

namespace lorry::generate {
namespace {

bool plain_greedy(const SequenceRequest& request) {
  const auto& p = request.sampling;
  return p.temperature == 0 && p.repetition_penalty == 1.0 && p.frequency_penalty == 0 &&
         p.presence_penalty == 0 && request.logit_bias.empty() && request.top_logprobs < 0;
}

/// logits: (V) float32 on the CPU.
at::Tensor biased(const at::Tensor& logits, const SequenceRequest& request) {
  if (request.logit_bias.empty()) return logits;
  at::Tensor out = logits.clone();
  float* data = out.data_ptr<float>();
  for (const auto& [id, bias] : request.logit_bias) {
    if (id >= 0 && id < out.size(0)) data[id] += bias;
  }
  return out;
}

/// logits: (V) float32 on the CPU.
TokenEvent sample_row(const at::Tensor& logits, const SamplingRow& row) {
  const SequenceRequest& request = *row.request;
  const size_t prompt = request.prompt.size();
  const TokenHistory history{row.tokens.first(prompt), row.tokens.subspan(prompt)};
  TokenEvent event;
  event.id = sample(biased(logits, request), request.sampling, *row.rng, history).id;
  if (request.top_logprobs < 0) return event;
  const at::Tensor logprobs = at::log_softmax(logits, 0);
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

}  // namespace lorry::generate

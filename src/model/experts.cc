// A mixture of experts: who a token goes to, and the sum over those.
#include <ATen/ATen.h>

#include <cmath>

#include "model/transformer.h"

namespace lorry::model {
namespace {

// T tokens, E experts, A of them active a token, G groups.

struct Routes {
  at::Tensor experts;  ///< (T, A) int64
  at::Tensor weights;  ///< (T, A), in the scores' dtype
};

/// Scores of experts outside the best groups are put out of the running.
/// Source: DeepSeek-AI 2024, arXiv:2412.19437, section 2.1.2 (node-limited routing).
at::Tensor keep_best_groups(const at::Tensor& scores, const RouterSpec& router) {
  if (router.groups <= 1) return scores;
  const at::Tensor grouped = scores.unflatten(1, {router.groups, -1});  // (T, G, E/G)
  const at::Tensor of_group = router.group_top == 1
                                  ? grouped.amax(-1)
                                  : std::get<0>(grouped.topk(router.group_top, -1)).sum(-1);
  const at::Tensor best = std::get<1>(of_group.topk(router.chosen_groups, -1, true, false));
  const at::Tensor keep = at::zeros_like(of_group).scatter_(1, best, 1.0);  // (T, G)
  const at::Tensor mask = keep.unsqueeze(-1).expand_as(grouped).flatten(1).to(at::kBool);
  return scores.masked_fill(at::logical_not(mask), -INFINITY);
}

}  // namespace

at::Tensor Transformer::feed_forward(const MoeSpec& spec, const MapInput& input,
                                     const AdapterView& adapters, bool recomputes_gate) const {
  const at::Tensor& x = input.x;
  const RouterSpec& router = spec.router;
  const auto routes = [&]() -> Routes {
    const auto dtype = router.is_float32 ? at::kFloat : x.scalar_type();
    at::Tensor logits = at::linear(x.to(dtype), tensors_[router.weight].to(dtype));
    if (router.bias >= 0) logits = logits + tensors_[router.bias].to(dtype);
    using Scores = RouterSpec::Scores;
    if (router.scores == Scores::kSoftmaxOfChosen) {
      const auto [best, experts] = logits.topk(spec.active, -1);
      return {experts, best.softmax(-1)};
    }
    const at::Tensor scores = router.scores == Scores::kSigmoid ? at::sigmoid(logits.to(at::kFloat))
                                                                : logits.softmax(-1, at::kFloat);
    const at::Tensor ranked =
        router.correction >= 0 ? scores + tensors_[router.correction].to(at::kFloat) : scores;
    const at::Tensor experts = std::get<1>(keep_best_groups(ranked, router).topk(spec.active, -1));
    at::Tensor weights = scores.gather(1, experts);
    if (router.renormalize) weights = weights / (weights.sum(-1, true) + 1e-20);
    return {experts, weights * router.scale};
  }();

  at::Tensor out = at::zeros_like(x);
  // One expert after another, each over its own tokens; tokens ascend, so that adapters' segments
  // stay in order.
  const at::Tensor host = routes.experts.to(at::kCPU);
  for (size_t e = 0; e < spec.experts.size(); ++e) {
    const at::Tensor places = at::nonzero(host == static_cast<int64_t>(e));  // (n, 2)
    if (places.size(0) == 0) continue;
    const at::Tensor tokens = places.select(1, 0), ranks = places.select(1, 1);
    const at::Tensor index = tokens.to(x.device());
    const at::Tensor weight = routes.weights.index({index, ranks.to(x.device())});
    const at::Tensor y = feed_forward(spec.experts[e], {x.index_select(0, index), {}},
                                      adapters.of_tokens(tokens), recomputes_gate);
    out = out.index_add(0, index, y * weight.unsqueeze(1).to(x.scalar_type()));
  }
  if (!spec.shared) return out;
  at::Tensor shared = feed_forward(*spec.shared, input, adapters, recomputes_gate);
  if (spec.shared_gate >= 0) {
    shared = at::sigmoid(project_one(spec.shared_gate, input, adapters)) * shared;
  }
  return out + shared;
}

}  // namespace lorry::model

#include "train/block_runner.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>
#include <memory>

namespace lorry::train {
namespace {

using torch::autograd::Node;
using torch::autograd::variable_list;

/// A copy in pinned memory that the device makes in its own time. The copy back is queued after it,
/// so nobody waits for either.
at::Tensor on_host(const at::Tensor& x) {
  if (x.is_cpu()) return x;
  const auto options = x.options().device(at::kCPU).pinned_memory(true);
  return at::empty(x.sizes(), options).copy_(x, /*non_blocking=*/true);
}

/// A block in autograd's graph that holds its input alone. Its weights and adapters are not its
/// inputs: the inner backward pass adds to their gradients by itself.
/// Source: Chen et al. 2016, arXiv:1604.06174; torch.utils.checkpoint with use_reentrant=True.
class RecomputedBlock final : public Node {
 public:
  RecomputedBlock(const model::Transformer& model, int64_t layer, const at::Tensor& x,
                  std::shared_ptr<const model::StepContext> context, bool offload)
      : Node(torch::autograd::collect_next_edges(x)),
        model_(model),
        layer_(layer),
        context_(std::move(context)),
        device_(x.device()),
        input_needs_grad_(x.requires_grad()),
        input_(offload ? on_host(x.detach()) : x.detach()) {}

  variable_list apply(variable_list&& grads) override {
    const at::Tensor x = input_.to(device_, /*non_blocking=*/true).detach();
    x.set_requires_grad(input_needs_grad_);
    const at::AutoGradMode with_graph(true);
    const at::Tensor y = model_.run_block(layer_, x, *context_);
    if (y.requires_grad()) torch::autograd::backward({y}, {grads[0]});
    release_variables();
    return {x.grad()};
  }

  void release_variables() override {
    input_.reset();
    context_.reset();
  }

 private:
  const model::Transformer& model_;
  const int64_t layer_;
  std::shared_ptr<const model::StepContext> context_;
  const at::Device device_;
  const bool input_needs_grad_;
  at::Tensor input_;
};

at::Tensor run_recomputed(const model::Transformer& model, int64_t layer, const at::Tensor& x,
                          const std::shared_ptr<const model::StepContext>& context, bool offload) {
  const std::shared_ptr<RecomputedBlock> node(
      new RecomputedBlock(model, layer, x, context, offload), torch::autograd::deleteNode);
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    y = model.run_block(layer, x, *context);
  }
  torch::autograd::set_history(y, node);
  return y;
}

constexpr std::string_view kNames[] = {"none", "light", "full", "offload"};  // by Recompute

}  // namespace

Recompute recompute_from(std::string_view name) {
  const auto found = std::find(std::begin(kNames), std::end(kNames), name);
  return found == std::end(kNames) ? Recompute::kNone : Recompute(found - std::begin(kNames));
}

std::string_view recompute_name(Recompute recompute) {
  return kNames[static_cast<size_t>(recompute)];
}

at::Tensor run_blocks(const model::Transformer& model, const at::Tensor& input_ids,
                      const at::Tensor& positions, model::AttentionView& attention,
                      const model::AdapterView& adapters, Recompute recompute) {
  model::StepContext step = model.step_context(positions, attention, adapters);
  step.recomputes_light = recompute == Recompute::kLight;
  const auto context = std::make_shared<const model::StepContext>(std::move(step));
  const bool is_kept = recompute == Recompute::kNone || recompute == Recompute::kLight;
  const bool offload = recompute == Recompute::kOffload;
  at::Tensor x = model.embed(input_ids, adapters);
  for (int64_t layer = 0; layer < model.spec().num_hidden_layers(); ++layer) {
    x = is_kept ? model.run_block(layer, x, *context)
                : run_recomputed(model, layer, x, context, offload);
  }
  return model.finish(x);
}

}  // namespace lorry::train

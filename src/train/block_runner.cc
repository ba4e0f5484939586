#include "train/block_runner.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <memory>

namespace lorry::train {
namespace {

using torch::autograd::Node;
using torch::autograd::variable_list;

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
        input_(offload ? x.detach().to(at::kCPU) : x.detach()) {}

  variable_list apply(variable_list&& grads) override {
    const at::Tensor x = input_.to(device_).detach();
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

}  // namespace

Checkpointing checkpointing_from(std::string_view name) {
  if (name == "recompute") return Checkpointing::kRecompute;
  return name == "offload" ? Checkpointing::kOffload : Checkpointing::kOff;
}

at::Tensor run_blocks(const model::Transformer& model, const at::Tensor& input_ids,
                      const at::Tensor& positions, model::AttentionView& attention,
                      const model::AdapterView& adapters, Checkpointing checkpointing) {
  if (checkpointing == Checkpointing::kOff) {
    return model.forward(input_ids, positions, attention, adapters);
  }
  const bool offload = checkpointing == Checkpointing::kOffload;
  const auto context = std::make_shared<const model::StepContext>(
      model.step_context(positions, attention, adapters));
  at::Tensor x = model.embed(input_ids, adapters);
  for (int64_t layer = 0; layer < model.spec().num_hidden_layers(); ++layer) {
    x = run_recomputed(model, layer, x, context, offload);
  }
  return model.finish(x);
}

}  // namespace lorry::train

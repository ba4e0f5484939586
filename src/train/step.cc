#include "train/step.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/autograd.h>

namespace lorry::train {
namespace {

/// The head that a step's loss goes through: the adapter's own where it has one.
Head head_of(const model::Transformer& model, const model::LoraAdapter* adapter) {
  const model::ModelSpec& spec = model.spec();
  const bool own = adapter && adapter->saved().head.defined();
  return {own ? adapter->saved().head.detach().to(model.dtype()) : model.head_weight(),
          spec.logit_scale, spec.logit_softcap};
}

}  // namespace

PendingNumbers::PendingNumbers(const at::Tensor& loss, const at::Tensor& grad_norm) {
  const at::Tensor both = at::stack({loss, grad_norm.to(at::kDouble)});
  const at::Device device = both.device();
  if (device.is_cpu()) {
    host_ = both;
    return;
  }
  host_ = at::empty({2}, at::TensorOptions(at::kDouble).pinned_memory(true));
  host_.copy_(both, /*non_blocking=*/true);
  copied_.emplace(device.type());
  copied_->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
}

StepNumbers PendingNumbers::read() const {
  if (copied_) copied_->synchronize();
  const double* numbers = host_.const_data_ptr<double>();
  return {numbers[0], numbers[1]};
}

StepRunner::StepRunner(const model::Transformer& model,
                       std::shared_ptr<const model::LoraAdapter> adapter, Trainable& trainable,
                       AdamW& optimizer, StepOptions options)
    : model_(model),
      adapter_(std::move(adapter)),
      trainable_(trainable),
      optimizer_(optimizer),
      options_(options) {}

PendingNumbers StepRunner::run(const StepBatch& batch, double learning_rate, double loss_scale) {
  const at::Tensor loss = gradients(batch, loss_scale);
  const at::NoGradGuard no_grad;
  at::Tensor norm = grad_norm(trainable_.flat_grads());
  if (loss_scale != 1) norm = norm / loss_scale;
  at::Tensor divisor;
  if (options_.max_grad_norm > 0) divisor = clip_divisor(norm, options_.max_grad_norm);
  if (loss_scale != 1) {
    divisor = divisor.defined() ? divisor * loss_scale : at::full_like(norm, loss_scale);
  }
  const at::Tensor is_broken = (norm * 0).ne(0).to(at::kFloat);  // 0 * infinity is not 0
  optimizer_.step(learning_rate, divisor, is_broken);
  trainable_.write_back();
  return {loss, norm};
}

/// Runs the step forward and backward; returns its mean loss.
at::Tensor StepRunner::gradients(const StepBatch& batch, double loss_scale) {
  trainable_.zero_grads();
  at::Tensor sum =
      at::zeros({}, at::TensorOptions(at::kDouble).device(trainable_.flat_grads().device()));
  if (batch.targets == 0) return sum;
  const auto targets = static_cast<double>(batch.targets);
  const Head head = head_of(model_, adapter_.get());
  for (const MicroBatch& on_host : batch.micro_batches) {
    const MicroBatch micro = on_host.to(model_.device());
    model::PackedAttention attention(micro.cu_seqlens, micro.cu_seqlens_device);
    model::AdapterView view = model::AdapterView::one(adapter_);
    view.dropout = options_.dropout;
    view.dropout_keys = micro.dropout_keys;
    const at::Tensor hidden =
        run_blocks(model_, micro.input_ids, micro.positions, attention, view, options_.recompute)
            .index_select(0, micro.target_rows);  // (N, hidden_size)
    const HeadLoss loss = objective_->gradients(micro, hidden.detach(), head, loss_scale / targets,
                                                trainable_.head_grad());
    sum += loss.sum;
    torch::autograd::backward({hidden}, {loss.hidden_grad});
    trainable_.collect_grads();
  }
  return sum / targets;
}

}  // namespace lorry::train

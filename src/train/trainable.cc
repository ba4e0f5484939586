#include "train/trainable.h"

#include <ATen/ATen.h>

namespace lorry::train {

void Trainable::add(std::string name, at::Tensor leaf) {
  const at::NoGradGuard no_grad;
  const bool is_master = leaf.scalar_type() == at::kFloat;
  leaf.set_requires_grad(true);
  names_.push_back(std::move(name));
  params_.push_back(is_master ? leaf : leaf.detach().to(at::kFloat));
  grads_.push_back(at::zeros(leaf.sizes(), leaf.options().dtype(at::kFloat).requires_grad(false)));
  if (is_master) leaf.mutable_grad() = grads_.back();  // autograd adds in place
  leaves_.push_back(std::move(leaf));
}

Trainable Trainable::of_adapter(const model::LoraAdapter& adapter) {
  Trainable trainable;
  for (auto& [name, tensor] : adapter.named_parameters()) {
    trainable.add(name, tensor);
    if (tensor.is_same(adapter.saved().head)) trainable.head_grad_ = trainable.grads_.back();
  }
  return trainable;
}

Trainable Trainable::of_model(const model::Transformer& model) {
  Trainable trainable;
  for (auto& [name, tensor] : model.named_weights()) {
    tensor.set_data(tensor.detach().clone(at::MemoryFormat::Contiguous));
    trainable.add(name, tensor);
    if (tensor.unsafeGetTensorImpl() == model.head_weight().unsafeGetTensorImpl()) {
      trainable.head_grad_ = trainable.grads_.back();
    }
  }
  return trainable;
}

int64_t Trainable::size() const {
  int64_t numbers = 0;
  for (const at::Tensor& param : params_) numbers += param.numel();
  return numbers;
}

void Trainable::zero_grads() {
  for (const at::Tensor& grad : grads_) grad.zero_();
}

void Trainable::collect_grads() {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < leaves_.size(); ++i) {
    at::Tensor& grad = leaves_[i].mutable_grad();
    if (!grad.defined() || grad.is_same(grads_[i])) continue;
    grads_[i].add_(grad);
    grad.reset();
  }
}

void Trainable::write_back() {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < leaves_.size(); ++i) {
    if (!leaves_[i].is_same(params_[i])) leaves_[i].copy_(params_[i]);
  }
}

}  // namespace lorry::train

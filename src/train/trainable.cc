#include "train/trainable.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>

#include "train/optimizer.h"

namespace lorry::train {

namespace {

std::vector<size_t> first_to_last(size_t count) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  return order;
}

}  // namespace

void Trainable::lay_out(const std::vector<std::pair<std::string, at::Tensor>>& named,
                        const std::vector<size_t>& memory_order) {
  const at::NoGradGuard no_grad;
  std::vector<size_t> order = memory_order;
  const auto first_plain = std::stable_partition(
      order.begin(), order.end(), [&](size_t i) { return has_weight_decay(named[i].first); });
  offsets_.resize(named.size());
  int64_t numbers = 0;
  for (auto it = order.begin(); it != order.end(); ++it) {
    offsets_[*it] = numbers;
    numbers += named[*it].second.numel();
    if (it < first_plain) decayed_ = numbers;
  }
  if (named.empty()) return;
  const auto options = named[0].second.options().dtype(at::kFloat).requires_grad(false);
  flat_params_ = at::zeros({(numbers + kFlatRow - 1) / kFlatRow * kFlatRow}, options);
  flat_grads_ = at::zeros_like(flat_params_);
  for (size_t i = 0; i < named.size(); ++i) {
    at::Tensor leaf = named[i].second;
    const auto view = [&](const at::Tensor& flat) {
      return flat.narrow(0, offsets_[i], leaf.numel()).view(leaf.sizes()).detach();
    };
    names_.push_back(named[i].first);
    params_.push_back(view(flat_params_).copy_(leaf));
    grads_.push_back(view(flat_grads_));
    if (leaf.scalar_type() == at::kFloat) {
      leaf.set_data(params_.back());
      leaf.set_requires_grad(true);
      params_.back() = leaf;
      leaf.mutable_grad() = grads_.back();  // autograd adds in place
    } else {
      leaf.set_data(leaf.detach().clone(at::MemoryFormat::Contiguous));
      leaf.set_requires_grad(true);
    }
    leaves_.push_back(std::move(leaf));
  }
}

at::Tensor Trainable::part(const at::Tensor& flat, size_t i) const {
  return flat.narrow(0, offsets_[i], params_[i].numel()).view(params_[i].sizes());
}

Trainable Trainable::of_tensors(const std::vector<std::pair<std::string, at::Tensor>>& named,
                                const std::vector<size_t>& memory_order) {
  Trainable trainable;
  trainable.lay_out(named, memory_order);
  return trainable;
}

Trainable Trainable::of_adapter(std::shared_ptr<model::LoraAdapter> adapter, at::ScalarType dtype) {
  const auto named = adapter->named_parameters();
  Trainable trainable = of_tensors(named, adapter->memory_order());
  for (size_t i = 0; i < named.size(); ++i) {
    if (named[i].second.is_same(adapter->saved().head)) trainable.head_grad_ = trainable.grads_[i];
  }
  if (dtype != at::kFloat) trainable.rounded_ = std::move(adapter);
  trainable.dtype_ = dtype;
  trainable.write_back();
  return trainable;
}

Trainable Trainable::of_model(const model::Transformer& model) {
  const auto named = model.named_weights();
  Trainable trainable = of_tensors(named, first_to_last(named.size()));
  for (size_t i = 0; i < named.size(); ++i) {
    if (named[i].second.unsafeGetTensorImpl() == model.head_weight().unsafeGetTensorImpl()) {
      trainable.head_grad_ = trainable.grads_[i];
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
  if (flat_grads_.defined()) flat_grads_.zero_();
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
  if (rounded_) rounded_->round_to(dtype_);
}

}  // namespace lorry::train

#include "ops/lora_linear.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>
#include <memory>

#include "ops/row_products.h"

namespace lorry::ops {
namespace {

using torch::autograd::Node;
using torch::autograd::variable_list;

/// One field of all modules.
template <typename Get>
std::vector<at::Tensor> collect(const std::vector<LoraModule>& modules, Get&& get) {
  std::vector<at::Tensor> tensors;
  for (const LoraModule& module : modules) {
    if (const at::Tensor& tensor = get(module); tensor.defined()) tensors.push_back(tensor);
  }
  return tensors;
}

/// Adds products to float32 gradients. Those of 16 bits are first made side by side in one buffer,
/// where the gradients are, so that they are added at once.
class GradientSum {
 public:
  GradientSum(const std::vector<at::Tensor>& grads, const at::Tensor& like)
      : is_direct_(like.scalar_type() == at::kFloat) {
    if (is_direct_) return;
    std::vector<at::Tensor> flat;
    for (const at::Tensor& grad : grads) flat.push_back(grad.view({-1}));
    grads_ = adjacent_rows(flat);
    if (grads_.defined()) products_ = at::empty(grads_.sizes(), like.options());
  }

  /// to += alpha x y, `to` among the gradients; once for each.
  void add(const at::Tensor& to, const at::Tensor& x, const at::Tensor& y, double alpha) {
    if (is_direct_) {
      to.addmm_(x, y, /*beta=*/1, alpha);
    } else if (products_.defined()) {
      at::Tensor out = products_.as_strided(to.sizes(), to.strides(),
                                            to.storage_offset() - grads_.storage_offset());
      at::addmm_out(out, out, x, y, /*beta=*/0, alpha);
    } else {
      to.add_(at::mm(x, y), alpha);
    }
  }
  void finish() {
    if (products_.defined()) grads_.add_(products_);
  }

 private:
  bool is_direct_;
  at::Tensor grads_, products_;
};

/// The arithmetic of one call, without autograd: forward, then backward once.
class LoraLinear {
 public:
  /// has_backward: a backward pass may follow.
  LoraLinear(std::vector<LoraModule> modules, std::function<at::Tensor()> x_again,
             bool has_backward)
      : modules_(std::move(modules)), x_again_(std::move(x_again)), has_backward_(has_backward) {
    for (const LoraModule& module : modules_) {
      columns_.push_back({out_, rank_});
      out_ += module.weight.out;
      rank_ += module.a.defined() ? module.a.size(0) : 0;
    }
    is_dense_ = std::all_of(modules_.begin(), modules_.end(), [](const LoraModule& module) {
      return module.weight.format == WeightFormat::kDense;
    });
    if (rank_ == 0) return;
    const auto parts = collect(
        modules_, [](const auto& m) -> const auto& { return m.a; });
    a_ = adjacent_rows(parts);
    if (!a_.defined()) a_ = at::cat(parts);
  }

  bool is_trained() const {
    return std::any_of(modules_.begin(), modules_.end(),
                       [](const LoraModule& module) { return module.a_grad.defined(); });
  }

  at::Tensor forward(const at::Tensor& x) {
    at::Tensor y = base(x);
    if (rank_ == 0) return y;
    down_ = at::mm(x, a_.t());  // (T, R)
    for (size_t m = 0; m < modules_.size(); ++m) {
      if (!modules_[m].b.defined()) continue;
      of_module(y, m).addmm_(down(down_, m), modules_[m].b.t(), /*beta=*/1, modules_[m].scale);
    }
    return y;
  }

  /// Before the forward's result leaves: what the backward pass needs of x.
  void keep(const at::Tensor& x) {
    if (is_trained() && !x_again_) x_ = x.detach();
  }

  /// dy: (T, out). Adds to the gradients of A and B; returns that of x, or undefined.
  at::Tensor backward(at::Tensor dy, bool wants_x) {
    if (dy.stride(-1) != 1) dy = dy.contiguous();
    at::Tensor d_down;  // (T, R)
    if (rank_ > 0 && (wants_x || is_trained())) d_down = down_gradient(dy);
    at::Tensor dx;
    if (wants_x) {
      dx = base_gradient(dy);
      if (d_down.defined()) dx.addmm_(d_down, a_);
    }
    if (is_trained()) add_gradients(dy, d_down);
    return dx;
  }

 private:
  struct Columns {
    int64_t out, rank;  // first
  };

  at::Tensor of_module(const at::Tensor& y, size_t m) const {
    return modules_.size() == 1 ? y : y.narrow(1, columns_[m].out, modules_[m].weight.out);
  }
  at::Tensor down(const at::Tensor& all, size_t m) const {
    return modules_.size() == 1 ? all : all.narrow(1, columns_[m].rank, modules_[m].a.size(0));
  }

  /// The modules' weights as one matrix, where they are one.
  at::Tensor joined_weight() const {
    if (!is_dense_) return {};
    return adjacent_rows(collect(
        modules_, [](const auto& m) -> const auto& { return m.weight.data; }));
  }

  at::Tensor base(const at::Tensor& x) const {
    if (!has_backward_) {
      std::vector<const Weight*> weights;
      for (const LoraModule& module : modules_) weights.push_back(&module.weight);
      if (cpu::takes_rows(x, weights)) return cpu::row_products(x, weights);
    }
    if (modules_.size() == 1) return linear(x, modules_[0].weight);
    const auto biases = collect(
        modules_, [](const auto& m) -> const auto& { return m.weight.bias; });
    if (const at::Tensor weight = joined_weight(); weight.defined()) {
      if (biases.empty()) return at::mm(x, weight.t());
      const at::Tensor bias =
          biases.size() == modules_.size() ? adjacent_rows(biases) : at::Tensor();
      if (bias.defined()) return at::addmm(bias, x, weight.t());
    }
    at::Tensor y = at::empty({x.size(0), out_}, x.options());
    for (size_t m = 0; m < modules_.size(); ++m) {
      const Weight& weight = modules_[m].weight;
      at::Tensor part = of_module(y, m);
      const at::Tensor matrix = dequantize(weight, x.scalar_type()).t();
      weight.bias.defined() ? at::addmm_out(part, weight.bias, x, matrix)
                            : at::mm_out(part, x, matrix);
    }
    return y;
  }

  at::Tensor base_gradient(const at::Tensor& dy) const {
    if (const at::Tensor weight = joined_weight(); weight.defined()) return at::mm(dy, weight);
    at::Tensor dx;
    for (size_t m = 0; m < modules_.size(); ++m) {
      const at::Tensor matrix = dequantize(modules_[m].weight, dy.scalar_type());
      if (m == 0) {
        dx = at::mm(of_module(dy, m), matrix);
      } else {
        dx.addmm_(of_module(dy, m), matrix);
      }
    }
    return dx;
  }

  at::Tensor down_gradient(const at::Tensor& dy) const {
    at::Tensor all = at::empty({dy.size(0), rank_}, dy.options());
    for (size_t m = 0; m < modules_.size(); ++m) {
      if (!modules_[m].b.defined()) continue;
      at::Tensor part = down(all, m);
      at::addmm_out(part, part, of_module(dy, m), modules_[m].b, /*beta=*/0, modules_[m].scale);
    }
    return all;
  }

  void add_gradients(const at::Tensor& dy, const at::Tensor& d_down) {
    const at::Tensor x = x_again_ ? x_again_() : x_;
    auto grads = collect(
        modules_, [](const auto& m) -> const auto& { return m.a_grad; });
    const at::Tensor joined = grads.size() == modules_.size() ? adjacent_rows(grads) : at::Tensor();
    const auto b_grads = collect(
        modules_, [](const auto& m) -> const auto& { return m.b_grad; });
    grads.insert(grads.end(), b_grads.begin(), b_grads.end());
    GradientSum sum(grads, x);
    if (joined.defined()) sum.add(joined, d_down.t(), x, 1);
    for (size_t m = 0; m < modules_.size(); ++m) {
      const LoraModule& module = modules_[m];
      if (!module.a_grad.defined()) continue;
      if (!joined.defined()) sum.add(module.a_grad, down(d_down, m).t(), x, 1);
      sum.add(module.b_grad, of_module(dy, m).t(), down(down_, m), module.scale);
    }
    sum.finish();
  }

  std::vector<LoraModule> modules_;
  std::function<at::Tensor()> x_again_;
  std::vector<Columns> columns_;
  int64_t out_ = 0, rank_ = 0;
  bool has_backward_, is_dense_ = false;
  at::Tensor a_;         // (R, in)
  at::Tensor x_, down_;  // for the backward pass
};

class LoraLinearNode final : public Node {
 public:
  LoraLinearNode(const at::Tensor& x, LoraLinear map)
      : Node(torch::autograd::collect_next_edges(x)), map_(std::move(map)) {}

  variable_list apply(variable_list&& grads) override {
    if (!grads[0].defined()) return {at::Tensor()};
    at::Tensor dx = map_->backward(std::move(grads[0]), task_should_compute_output(0));
    release_variables();
    return {std::move(dx)};
  }
  void release_variables() override { map_.reset(); }

 private:
  std::optional<LoraLinear> map_;
};

}  // namespace

at::Tensor adjacent_rows(const std::vector<at::Tensor>& parts) {
  const at::Tensor& first = parts.front();
  int64_t rows = 0;
  for (const at::Tensor& part : parts) {
    const bool follows = part.storage().is_alias_of(first.storage()) &&
                         part.storage_offset() ==
                             first.storage_offset() + rows * (first.dim() > 1 ? first.size(1) : 1);
    if (!follows || !part.is_contiguous() || part.sizes().slice(1) != first.sizes().slice(1) ||
        part.scalar_type() != first.scalar_type()) {
      return {};
    }
    rows += part.size(0);
  }
  if (parts.size() == 1) return first;
  std::vector<int64_t> sizes = first.sizes().vec();
  sizes[0] = rows;
  return first.as_strided(sizes, first.strides());
}

at::Tensor lora_linear(const at::Tensor& x, std::vector<LoraModule> modules,
                       std::function<at::Tensor()> x_again) {
  const bool has_graph = at::GradMode::is_enabled();
  LoraLinear map(std::move(modules), std::move(x_again), has_graph);
  const bool needs_graph = has_graph && (x.requires_grad() || map.is_trained());
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    y = map.forward(x);
    if (!needs_graph) return y;
    map.keep(x);
  }
  const std::shared_ptr<LoraLinearNode> node(new LoraLinearNode(x, std::move(map)),
                                             torch::autograd::deleteNode);
  torch::autograd::set_history(y, node);
  return y;
}

}  // namespace lorry::ops

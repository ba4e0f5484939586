#include "ops/attention_packed.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

namespace lorry::ops::cpu {
namespace {

using torch::autograd::Node;
using torch::autograd::variable_list;

// T tokens of all sequences, n of one; H query heads, K key/value heads, G = H / K, D head size.

struct Heads {
  at::Tensor q, k, v;  ///< (T, H, D), (T, K, D), (T, K, D)
};

Heads views_of(const at::Tensor& joined, int64_t heads, int64_t kv_heads) {
  const at::Tensor all = joined.unflatten(1, {heads + 2 * kv_heads, -1});
  return {all.narrow(1, 0, heads), all.narrow(1, heads, kv_heads),
          all.narrow(1, heads + kv_heads, kv_heads)};
}

/// Tokens of one sequence, by group: (T, heads, D) -> (K, heads / K, n, D).
at::Tensor by_group(const at::Tensor& x, int64_t start, int64_t n, int64_t kv_heads) {
  return x.narrow(0, start, n).unflatten(1, {kv_heads, -1}).permute({1, 2, 0, 3});
}

/// The arithmetic without autograd. A group's heads share their key by a stride of 0: to the kernel
/// groups are a batch.
class PackedAttention {
 public:
  PackedAttention(Heads in, double scale, Ends ends)
      : in_(std::move(in)), scale_(scale), ends_(std::move(ends)) {}

  at::Tensor forward() {
    at::Tensor out = at::empty(in_.q.sizes(), in_.q.options());
    for_sequences([&](int64_t start, int64_t n) {
      const auto [part, log_sums] = at::_scaled_dot_product_flash_attention_for_cpu(
          of(in_.q, start, n), spread(in_.k, start, n), spread(in_.v, start, n), 0.0,
          /*is_causal=*/true, std::nullopt, scale_);
      of(out, start, n).copy_(part);
      log_sums_.push_back(log_sums);
    });
    return out;
  }

  /// Writes all of `to`.
  void backward(const at::Tensor& out, const at::Tensor& grad, const Heads& to) {
    size_t sequence = 0;
    for_sequences([&](int64_t start, int64_t n) {
      const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          of(grad, start, n), of(in_.q, start, n), spread(in_.k, start, n), spread(in_.v, start, n),
          of(out, start, n), log_sums_[sequence++], 0.0,
          /*is_causal=*/true, std::nullopt, scale_);
      of(to.q, start, n).copy_(dq);
      of(to.k, start, n).copy_(dk.sum(1, /*keepdim=*/true));
      of(to.v, start, n).copy_(dv.sum(1, /*keepdim=*/true));
    });
  }

  const Heads& in() const { return in_; }

 private:
  template <typename Fn>
  void for_sequences(Fn&& fn) const {
    for (size_t i = 1; i < ends_->size(); ++i) {
      const int64_t start = (*ends_)[i - 1], n = (*ends_)[i] - start;
      if (n > 0) fn(start, n);
    }
  }
  int64_t kv_heads() const { return in_.k.size(1); }
  at::Tensor of(const at::Tensor& x, int64_t start, int64_t n) const {
    return by_group(x, start, n, kv_heads());
  }
  at::Tensor spread(const at::Tensor& x, int64_t start, int64_t n) const {
    return of(x, start, n).expand({-1, in_.q.size(1) / kv_heads(), -1, -1});
  }

  Heads in_;
  double scale_;
  Ends ends_;
  std::vector<at::Tensor> log_sums_;  // by sequence
};

class PackedAttentionNode final : public Node {
 public:
  PackedAttentionNode(torch::autograd::edge_list edges, PackedAttention attention,
                      const at::Tensor& out, bool is_joined)
      : Node(std::move(edges)),
        attention_(std::move(attention)),
        out_(out.detach()),
        is_joined_(is_joined) {}

  variable_list apply(variable_list&& grads) override {
    if (!grads[0].defined()) return variable_list(is_joined_ ? 1 : 3);
    const Heads& in = attention_->in();
    const int64_t tokens = in.q.size(0), heads = in.q.size(1), kv_heads = in.k.size(1);
    const at::Tensor grad = grads[0].stride(-1) == 1 ? grads[0] : grads[0].contiguous();
    variable_list result;
    if (is_joined_) {
      result = {at::empty({tokens, (heads + 2 * kv_heads) * in.q.size(2)}, in.q.options())};
      attention_->backward(out_, grad, views_of(result[0], heads, kv_heads));
    } else {
      for (const at::Tensor* x : {&in.q, &in.k, &in.v}) {
        result.push_back(at::empty(x->sizes(), x->options()));
      }
      attention_->backward(out_, grad, {result[0], result[1], result[2]});
    }
    release_variables();
    return result;
  }
  void release_variables() override {
    attention_.reset();
    out_.reset();
  }

 private:
  std::optional<PackedAttention> attention_;
  at::Tensor out_;
  bool is_joined_;
};

at::Tensor attend(Heads in, double scale, const Ends& ends, torch::autograd::edge_list edges,
                  bool needs_grad, bool is_joined) {
  PackedAttention attention(std::move(in), scale, ends);
  at::Tensor out;
  {
    const at::NoGradGuard no_grad;
    out = attention.forward();
  }
  if (!needs_grad) return out;
  const std::shared_ptr<PackedAttentionNode> node(
      new PackedAttentionNode(std::move(edges), std::move(attention), out, is_joined),
      torch::autograd::deleteNode);
  torch::autograd::set_history(out, node);
  return out;
}

}  // namespace

bool attends_packed(const at::Tensor& q, const at::Tensor& v, const AttentionParams& params,
                    int64_t longest) {
  const bool sees_all = params.window == 0 || params.window >= longest;
  return q.is_cpu() && params.is_fused() && sees_all && q.size(2) == v.size(2) &&
         q.stride(2) == 1 && v.stride(2) == 1;
}

at::Tensor attend_packed(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         double scale, const Ends& ends) {
  const bool needs_grad =
      at::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad());
  return attend({q.detach(), k.detach(), v.detach()}, scale, ends,
                torch::autograd::collect_next_edges(q, k, v), needs_grad, false);
}

at::Tensor attend_packed_joined(const at::Tensor& qkv, int64_t heads, int64_t kv_heads,
                                double scale, const Ends& ends) {
  const bool needs_grad = at::GradMode::is_enabled() && qkv.requires_grad();
  return attend(views_of(qkv.detach(), heads, kv_heads), scale, ends,
                torch::autograd::collect_next_edges(qkv), needs_grad, true);
}

}  // namespace lorry::ops::cpu

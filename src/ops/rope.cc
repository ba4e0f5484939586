#include "ops/rope.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <memory>

#include "ops/cpu_kernels.h"
#include "ops/cuda_module.h"

namespace lorry::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

at::Tensor rotate_plain(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = cos.size(-1), rest = x.size(-1) - 2 * half;
  const at::Tensor a = x.narrow(-1, 0, half), b = x.narrow(-1, half, half);
  std::vector<at::Tensor> parts = {a * cos - b * sin, b * cos + a * sin};
  if (rest > 0) parts.push_back(x.narrow(-1, 2 * half, rest));
  return at::cat(parts, -1);
}

/// By a kernel of ours; there is one for x's device.
at::Tensor rotated(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, float sign) {
  if (x.is_cpu()) return cpu::rotate(x, cos, sin, sign);
  const at::Tensor in = x.stride(-1) == 1 ? x : x.contiguous();
  at::Tensor out = at::empty(x.sizes(), x.options());
  cuda_kernels(x.device())->rope.rotate(in, out, cos.contiguous(), sin.contiguous(), sign);
  return out;
}

struct Rotate : Function<Rotate> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin) {
    ctx->save_for_backward({cos, sin});
    return rotated(x, cos, sin, 1.0f);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    return {rotated(grads[0], saved[0], saved[1], -1.0f), at::Tensor(), at::Tensor()};
  }
};

/// Rotates by the angles, or with sign -1 back.
void turn(const at::Tensor& x, int64_t heads, int64_t head_dim, const at::Tensor& cos,
          const at::Tensor& sin, float sign) {
  if (cpu::takes(x)) return cpu::rotate_in_place(x, heads, head_dim, cos, sin, sign);
  const int64_t half = cos.size(-1);
  const at::Tensor all = x.narrow(1, 0, heads * head_dim).unflatten(1, {heads, head_dim});
  if (const CudaModule* const module = cuda_kernels(x.device())) {
    return module->rope.rotate(all, all, cos.contiguous(), sin.contiguous(), sign);
  }
  const at::Tensor a = all.narrow(2, 0, half), b = all.narrow(2, half, half);
  const at::Tensor from_a = a * sin, from_b = b * sin;
  a.mul_(cos).sub_(from_b, sign);
  b.mul_(cos).add_(from_a, sign);
}

/// Whether nobody but the owner of this tensor can read it.
bool is_unshared(const at::Tensor& x) { return x.use_count() == 1 && x.storage().use_count() == 1; }

class RotateInPlace final : public torch::autograd::Node {
 public:
  RotateInPlace(const at::Tensor& x, int64_t heads, int64_t head_dim, at::Tensor cos,
                at::Tensor sin)
      : Node(torch::autograd::collect_next_edges(x)),
        heads_(heads),
        head_dim_(head_dim),
        cos_(std::move(cos)),
        sin_(std::move(sin)) {}

  variable_list apply(variable_list&& grads) override {
    at::Tensor grad = std::move(grads[0]);
    if (!grad.defined()) return {grad};
    if (!is_unshared(grad) || grad.stride(1) != 1) grad = grad.clone(at::MemoryFormat::Contiguous);
    turn(grad, heads_, head_dim_, cos_, sin_, -1.0f);
    return {std::move(grad)};
  }
  void release_variables() override {
    cos_.reset();
    sin_.reset();
  }

 private:
  int64_t heads_, head_dim_;
  at::Tensor cos_, sin_;
};

}  // namespace

at::Tensor rotate_in_place(at::Tensor x, int64_t heads, int64_t head_dim, const at::Tensor& cos,
                           const at::Tensor& sin) {
  const bool needs_grad = at::GradMode::is_enabled() && x.requires_grad();
  const at::NoGradGuard no_grad;
  at::Tensor turned = x.detach();
  turn(turned, heads, head_dim, cos, sin, 1.0f);
  if (!needs_grad) return turned;
  const std::shared_ptr<RotateInPlace> node(new RotateInPlace(x, heads, head_dim, cos, sin),
                                            torch::autograd::deleteNode);
  torch::autograd::set_history(turned, node);
  return turned;
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  if (!cpu::takes(x) && cuda_kernels(x.device()) == nullptr) return rotate_plain(x, cos, sin);
  const bool needs_grad = at::GradMode::is_enabled() && x.requires_grad();
  return needs_grad ? Rotate::apply(x, cos, sin) : rotated(x, cos, sin, 1.0f);
}

}  // namespace lorry::ops

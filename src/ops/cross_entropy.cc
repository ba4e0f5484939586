#include "ops/cross_entropy.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "ops/cpu_kernels.h"
#include "ops/cuda_module.h"

namespace lorry::ops {
namespace {

at::Tensor plain(at::Tensor& logits, const at::Tensor& targets, double scale) {
  const bool is_wide = logits.scalar_type() == at::kFloat;
  at::Tensor z = is_wide ? logits : logits.to(at::kFloat);
  const at::Tensor index = targets.unsqueeze(1);       // (n, 1)
  const at::Tensor lse = at::logsumexp(z, {1}, true);  // (n, 1)
  const at::Tensor loss = (lse - z.gather(1, index)).sum(at::kDouble);
  z.sub_(lse).exp_();
  z.scatter_add_(1, index, at::full_like(lse, -1.0));
  z.mul_(scale);
  if (!is_wide) logits.copy_(z);
  return loss;
}

at::Tensor in_place(at::Tensor& logits, const at::Tensor& targets, double scale) {
  return cpu::takes(logits) ? cpu::cross_entropy_(logits, targets, scale)
                            : plain(logits, targets, scale);
}

at::Tensor transformed(at::Tensor& logits, const at::Tensor& targets, double scale,
                       const LogitTransform& transform) {
  const double cap = transform.softcap;
  at::Tensor z = logits;
  if (transform.scale != 1) z = z * transform.scale;
  if (cap > 0) z = at::tanh(z / cap) * cap;
  z = z.to(at::kFloat);
  // The cap's slope at each logit, before the logits become gradients: 1 - tanh^2.
  const at::Tensor slope = cap > 0 ? 1 - (z / cap).square() : at::Tensor();
  const at::Tensor loss = in_place(z, targets, scale);
  if (slope.defined()) z.mul_(slope);
  if (transform.scale != 1) z.mul_(transform.scale);
  logits.copy_(z);
  return loss;
}

}  // namespace

at::Tensor cross_entropy_(at::Tensor& logits, const at::Tensor& targets, double scale,
                          const LogitTransform& transform) {
  const at::NoGradGuard no_grad;
  if (const CudaModule* const module = cuda_kernels(logits.device())) {
    return module->cross_entropy.cross_entropy(logits, targets.contiguous(), scale, transform);
  }
  const bool is_plain = transform.scale == 1 && transform.softcap == 0;
  return is_plain ? in_place(logits, targets, scale)
                  : transformed(logits, targets, scale, transform);
}

}  // namespace lorry::ops

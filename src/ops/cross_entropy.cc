#include "ops/cross_entropy.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "ops/cpu_kernels.h"

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

}  // namespace

at::Tensor cross_entropy_(at::Tensor& logits, const at::Tensor& targets, double scale) {
  const at::NoGradGuard no_grad;
  return cpu::takes(logits) ? cpu::cross_entropy_(logits, targets, scale)
                            : plain(logits, targets, scale);
}

}  // namespace lorry::ops

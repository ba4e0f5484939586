#include "train/loss.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace lorry::train {
namespace {

// V vocabulary size. Logits of a chunk take 4 V bytes a row: 128 rows of 150 k are 78 MB.
constexpr int64_t kChunkBytes = 80 << 20;

int64_t chunk_rows(int64_t vocab_size, at::Device device) {
  const int64_t bytes = device.is_cpu() ? kChunkBytes : 8 * kChunkBytes;
  return std::clamp<int64_t>(bytes / (4 * vocab_size), 16, 4096);
}

/// Turns logits (n, V) into scale * (softmax - one hot), in float32; returns the sum of the losses.
at::Tensor cross_entropy_gradient_(at::Tensor& z, const at::Tensor& targets, double scale) {
  const at::Tensor index = targets.unsqueeze(1);       // (n, 1)
  const at::Tensor lse = at::logsumexp(z, {1}, true);  // (n, 1)
  const at::Tensor loss = (lse - z.gather(1, index)).sum(at::kDouble);
  z.sub_(lse).exp_();
  z.scatter_add_(1, index, at::full_like(lse, -1.0));
  z.mul_(scale);
  return loss;
}

}  // namespace

int64_t logits_bytes(int64_t vocab_size, at::Device device) {
  // As the product leaves them, as the softmax works on them, and as the backward product takes
  // them.
  return chunk_rows(vocab_size, device) * vocab_size * (2 + 4 + 2);
}

HeadLoss head_loss(const at::Tensor& hidden, const at::Tensor& targets, const at::Tensor& head,
                   double scale, const at::Tensor& head_grad) {
  const at::NoGradGuard no_grad;
  const int64_t rows = hidden.size(0);
  const int64_t step = chunk_rows(head.size(0), hidden.device());
  HeadLoss result{0, at::empty_like(hidden)};
  at::Tensor sum = at::zeros({}, hidden.options().dtype(at::kDouble));
  for (int64_t begin = 0; begin < rows; begin += step) {
    const int64_t n = std::min(step, rows - begin);
    const at::Tensor x = hidden.narrow(0, begin, n);
    at::Tensor z = at::linear(x, head).to(at::kFloat);  // (n, V)
    sum += cross_entropy_gradient_(z, targets.narrow(0, begin, n), scale);
    if (head_grad.defined()) head_grad.addmm_(z.t(), x.to(at::kFloat));
    at::Tensor out = result.hidden_grad.narrow(0, begin, n);
    at::mm_out(out, z.to(hidden.scalar_type()), head);
  }
  result.sum = sum.item<double>();
  return result;
}

}  // namespace lorry::train

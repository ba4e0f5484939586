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

/// The head's logits of rows x (n, H), in float32.
at::Tensor logits_of(const at::Tensor& x, const Head& head) {
  at::Tensor z = at::linear(x, head.weight);
  if (head.scale != 1) z = z * head.scale;
  if (head.softcap > 0) z = at::tanh(z / head.softcap) * head.softcap;
  return z.to(at::kFloat);
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

HeadLoss head_loss(const at::Tensor& hidden, const at::Tensor& targets, const Head& head,
                   double scale, const at::Tensor& head_grad) {
  const at::NoGradGuard no_grad;
  const int64_t rows = hidden.size(0);
  const int64_t step = chunk_rows(head.weight.size(0), hidden.device());
  HeadLoss result{0, at::empty_like(hidden)};
  at::Tensor sum = at::zeros({}, hidden.options().dtype(at::kDouble));
  for (int64_t begin = 0; begin < rows; begin += step) {
    const int64_t n = std::min(step, rows - begin);
    const at::Tensor x = hidden.narrow(0, begin, n);
    at::Tensor z = logits_of(x, head);  // (n, V)
    // The soft cap's slope at each logit, before the logits become gradients: 1 - tanh^2.
    const at::Tensor slope = head.softcap > 0 ? 1 - (z / head.softcap).square() : at::Tensor();
    sum += cross_entropy_gradient_(z, targets.narrow(0, begin, n), scale);
    if (slope.defined()) z.mul_(slope);
    if (head.scale != 1) z.mul_(head.scale);
    if (head_grad.defined()) head_grad.addmm_(z.t(), x.to(at::kFloat));
    at::Tensor out = result.hidden_grad.narrow(0, begin, n);
    at::mm_out(out, z.to(hidden.scalar_type()), head.weight);
  }
  result.sum = sum.item<double>();
  return result;
}

}  // namespace lorry::train

#include "train/loss.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "ops/cross_entropy.h"

namespace lorry::train {
namespace {

// V vocabulary size. Logits of a chunk take 4 V bytes a row: 128 rows of 150 k are 78 MB.
constexpr int64_t kChunkBytes = 80 << 20;

int64_t chunk_rows(int64_t vocab_size, at::Device device) {
  const int64_t bytes = device.is_cpu() ? kChunkBytes : 8 * kChunkBytes;
  return std::clamp<int64_t>(bytes / (4 * vocab_size), 16, 4096);
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
  HeadLoss result{at::zeros({}, hidden.options().dtype(at::kDouble)), at::empty_like(hidden)};
  for (int64_t begin = 0; begin < rows; begin += step) {
    const int64_t n = std::min(step, rows - begin);
    const at::Tensor x = hidden.narrow(0, begin, n);
    at::Tensor z = at::linear(x, head.weight);  // (n, V)
    // The head's gradient takes its terms unrounded.
    if (head_grad.defined()) z = z.to(at::kFloat);
    result.sum +=
        ops::cross_entropy_(z, targets.narrow(0, begin, n), scale, {head.scale, head.softcap});
    if (head_grad.defined()) head_grad.addmm_(z.t(), x.to(at::kFloat));
    at::Tensor out = result.hidden_grad.narrow(0, begin, n);
    at::mm_out(out, z.to(hidden.scalar_type()), head.weight);
  }
  return result;
}

}  // namespace lorry::train

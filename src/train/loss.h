// Head and cross-entropy in one, over the rows that have a target, without ever holding all logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lorry::train {

/// Bytes of the logits that head_loss holds at once, in 16 bits and in float32.
int64_t logits_bytes(int64_t vocab_size, at::Device device);

struct HeadLoss {
  at::Tensor sum;          ///< of the losses of all rows, in nats: float64 scalar on the device
  at::Tensor hidden_grad;  ///< (N, H) of scale * sum, in the hidden state's dtype
};

/// What turns hidden states into logits: softcap(scale * hidden weight^T).
struct Head {
  at::Tensor weight;   ///< (V, H) in hidden's dtype
  double scale = 1;    ///< on the logits (Granite)
  double softcap = 0;  ///< c: c tanh(logit / c) (Gemma 2); 0: none
};

/// Loss and gradient of next-token prediction.
///
/// hidden: (N, H), no graph needed; targets: (N) int64. Logits are made for a few rows at a time
/// and the softmax runs in float32. `scale` multiplies the gradients alone: 1 / targets of the
/// step, times the loss scale of float16. `head_grad`, if it is defined, is (V, H) float32 and has
/// the head's gradient added.
HeadLoss head_loss(const at::Tensor& hidden, const at::Tensor& targets, const Head& head,
                   double scale, const at::Tensor& head_grad = {});

}  // namespace lorry::train

// Attention of an engine step over the paged cache.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "generate/kv_cache.h"
#include "model/attention_view.h"
#include "model/lora.h"
#include "ops/attention.h"
#include "ops/step_inputs.h"

namespace lorry::generate {

/// What one engine step computes of one sequence: its next tokens (a prompt, a part of one, or a
/// single token).
struct SequenceStep {
  const KvCache::Sequence* cache = nullptr;  ///< holds what came before, has room for these
  std::span<const int32_t> tokens;           ///< at least one
  std::shared_ptr<const model::LoraAdapter> adapter;  ///< null: the base model
  int64_t logits = 0;  ///< of how many tokens, the last ones, logits are wanted
  /// Tokens the sequence is known to have, those that later steps compute included; 0: none beyond
  /// this step's. longrope chooses its frequencies by it, the same for all parts of a prompt.
  int64_t known_tokens = 0;
};

/// Lays the steps out for `device`. adapters: for each step the index of its adapter; empty: 0 for
/// all. One copy from host to device, from pinned memory on a GPU.
ops::StepInputs make_step_inputs(std::span<const SequenceStep> steps,
                                 std::span<const int32_t> adapters, at::Device device);

/// Writes the new tokens' keys and values to the cache, then attends to all of each sequence. Lives
/// for one step: `cache`, `steps` and `inputs`, which was made of these steps, must outlive it. The
/// caller has reserved the room and adds the new tokens to the sequences' lengths afterwards.
class CachedAttention final : public model::AttentionView {
 public:
  /// rank: whose part of the cache it is.
  CachedAttention(KvCache& cache, std::span<const SequenceStep> steps,
                  const ops::StepInputs& inputs, int64_t rank = 0)
      : cache_(cache), steps_(steps), inputs_(inputs), rank_(rank) {}
  at::Tensor attend(int64_t layer, const ops::AttentionParams& params, const at::Tensor& q,
                    const at::Tensor& k, const at::Tensor& v) override;
  at::Tensor context_lengths(at::Device device) const override;

 private:
  at::Tensor attend_chunk(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          int64_t layer, size_t sequence, const ops::AttentionParams& params);

  KvCache& cache_;
  std::span<const SequenceStep> steps_;
  const ops::StepInputs& inputs_;
  int64_t rank_;
  ops::MaskCache masks_;  // the layers of the step share them
};

}  // namespace lorry::generate

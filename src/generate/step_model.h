// The seam between the scheduler and the model: what one step takes and gives.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "generate/cached_attention.h"
#include "generate/kv_cache.h"
#include "model/transformer.h"

namespace lorry::generate {

/// One set of weights and its cache. Used by the scheduler's thread alone.
class StepModel {
 public:
  virtual ~StepModel() = default;
  virtual KvCache& cache() = 0;
  /// Tokens of one step that use the device well without keeping running sequences waiting.
  virtual int64_t step_tokens() const = 0;
  /// The length beyond which all keys of a sequence are others than before (longrope), so that its
  /// cache is to be computed anew; 0: none.
  virtual int64_t keys_change_after() const { return 0; }
  /// Whether the device still computes: asked after a step has failed.
  virtual bool device_works() { return true; }
  /// Computes all steps at once. Returns (R, vocab_size): the logits that the steps want, in order.
  /// The caller adds the tokens to the sequences' lengths.
  virtual at::Tensor step(std::span<const SequenceStep> steps) = 0;
};

/// A transformer, by its ranks (most often one), with a paged cache of `kv_cache_tokens`.
std::unique_ptr<StepModel> make_step_model(std::vector<std::shared_ptr<model::Transformer>> ranks,
                                           int64_t kv_cache_tokens);

/// Tokens of cache for a model, of which `transformer` may be one rank: `wanted` if it is not 0,
/// else what memory allows (on a CPU a quarter of the machine's or container's, on a GPU 85 % of
/// what is free on a GPU), at most `useful`. `shares`: how many caches that memory is for.
int64_t choose_kv_cache_tokens(const model::Transformer& transformer, int64_t wanted,
                               int64_t useful, int64_t shares);

}  // namespace lorry::generate

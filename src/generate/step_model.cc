#include "generate/step_model.h"

#include <ATen/DeviceAccelerator.h>
#include <ATen/Functions.h>
#include <unistd.h>  // sysconf

#include <algorithm>
#include <vector>

namespace lorry::generate {
namespace {

int64_t longrope_length(const model::ModelSpec& spec) {
  for (const model::RopeSpec& rope : spec.ropes) {
    if (rope.type == model::RopeSpec::Type::kLongRope) return rope.original_max_position_embeddings;
  }
  return 0;
}

class TransformerStepModel final : public StepModel {
 public:
  TransformerStepModel(std::shared_ptr<model::Transformer> transformer, int64_t kv_cache_tokens)
      : transformer_(std::move(transformer)),
        cache_(transformer_->spec().cache_layout(), kv_cache_tokens, transformer_->dtype(),
               transformer_->device()),
        capacity_tokens_(cache_.free_tokens()),
        keys_change_after_(longrope_length(transformer_->spec())) {}

  int64_t capacity_tokens() const override { return capacity_tokens_; }
  int64_t free_tokens() const override { return cache_.free_tokens(); }
  int64_t step_tokens() const override { return transformer_->device().is_cpu() ? 512 : 4096; }
  int64_t keys_change_after() const override { return keys_change_after_; }
  bool reserve(KvCache::Sequence& sequence, int64_t tokens) override {
    return cache_.reserve(sequence, tokens);
  }
  void release(KvCache::Sequence& sequence) override { cache_.release(sequence); }

  at::Tensor step(std::span<const SequenceStep> steps) override {
    const Adapters adapters = adapters_of(steps);
    const ops::StepInputs inputs =
        make_step_inputs(steps, adapters.of_step, transformer_->device());
    CachedAttention attention(cache_, steps, inputs);
    at::Tensor hidden =
        transformer_->forward(inputs.input_ids, inputs.positions, attention, adapters.of_tokens);
    const int64_t wanted = inputs.logit_rows.size(0);
    if (wanted == 0) return {};
    if (wanted != inputs.tokens) hidden = hidden.index_select(0, inputs.logit_rows);
    return transformer_->logits(hidden, adapters.of_logits);
  }

 private:
  struct Adapters {
    model::AdapterView of_tokens, of_logits;  // segments of all new tokens; of those with logits
    std::vector<int32_t> of_step;             // index into their adapters
  };

  static void append(model::AdapterView& view, int64_t adapter, int64_t tokens) {
    if (!view.segments.empty() && view.segments.back().first == adapter) {
      view.segments.back().second += tokens;
    } else {
      view.segments.emplace_back(adapter, tokens);
    }
  }

  /// The adapters of the steps, each once, and who goes through which.
  static Adapters adapters_of(std::span<const SequenceStep> steps) {
    Adapters out;
    auto& all = out.of_tokens.adapters;
    for (const SequenceStep& step : steps) {
      const auto found = std::find(all.begin(), all.end(), step.adapter);
      const int64_t index = found - all.begin();
      if (found == all.end()) all.push_back(step.adapter);
      out.of_step.push_back(static_cast<int32_t>(index));
      append(out.of_tokens, index, static_cast<int64_t>(step.tokens.size()));
      if (step.logits > 0) append(out.of_logits, index, step.logits);
    }
    if (all.size() == 1) {  // then it serves all
      out.of_tokens.segments.clear();
      out.of_logits.segments.clear();
    }
    out.of_logits.adapters = all;
    return out;
  }

  std::shared_ptr<model::Transformer> transformer_;
  KvCache cache_;
  int64_t capacity_tokens_;
  int64_t keys_change_after_;
};

int64_t cache_memory(at::Device device) {
  if (device.is_cpu())
    return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE) / 4;
  const auto [free, total] = at::accelerator::getMemoryInfo(device.index());
  return static_cast<int64_t>(static_cast<double>(free) * 0.85);
}

}  // namespace

std::unique_ptr<StepModel> make_step_model(std::shared_ptr<model::Transformer> transformer,
                                           int64_t kv_cache_tokens) {
  return std::make_unique<TransformerStepModel>(std::move(transformer), kv_cache_tokens);
}

int64_t choose_kv_cache_tokens(const model::Transformer& transformer, int64_t wanted,
                               int64_t useful, int64_t shares) {
  if (wanted > 0) return wanted;
  int64_t numbers_per_token = 0;
  for (const model::LayerCache& layer : transformer.spec().cache_layout()) {
    numbers_per_token += layer.kv_heads * (layer.key_dim + layer.value_dim);
  }
  const int64_t bytes_per_token =
      numbers_per_token * static_cast<int64_t>(c10::elementSize(transformer.dtype()));
  const int64_t possible =
      cache_memory(transformer.device()) / shares / std::max<int64_t>(bytes_per_token, 1);
  return std::max<int64_t>(std::min(possible, useful), KvCache::kBlockTokens);
}

}  // namespace lorry::generate

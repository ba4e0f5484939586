#include "generate/step_model.h"

#include <ATen/DeviceAccelerator.h>
#include <ATen/Functions.h>
#include <unistd.h>  // sysconf

#include <algorithm>
#include <vector>

namespace lorry::generate {
namespace {

class TransformerStepModel final : public StepModel {
 public:
  TransformerStepModel(std::shared_ptr<model::Transformer> transformer, int64_t kv_cache_tokens)
      : transformer_(std::move(transformer)),
        cache_(transformer_->spec().cache_layout(), kv_cache_tokens, transformer_->dtype(),
               transformer_->device()),
        capacity_tokens_(cache_.free_tokens()) {}

  int64_t capacity_tokens() const override { return capacity_tokens_; }
  int64_t step_tokens() const override { return transformer_->device().is_cpu() ? 512 : 4096; }
  bool reserve(KvCache::Sequence& sequence, int64_t tokens) override {
    return cache_.reserve(sequence, tokens);
  }
  void release(KvCache::Sequence& sequence) override { cache_.release(sequence); }

  at::Tensor step(std::span<const StepRow> rows) override {
    std::vector<int64_t> ids, positions, new_tokens, wanted;
    std::vector<const KvCache::Sequence*> sequences;
    model::AdapterView adapters;
    for (const StepRow& row : rows) {
      const int64_t n = static_cast<int64_t>(row.tokens.size());
      for (int64_t i = 0; i < n; ++i) positions.push_back(row.cache->length + i);
      ids.insert(ids.end(), row.tokens.begin(), row.tokens.end());
      new_tokens.push_back(n);
      sequences.push_back(row.cache);
      add_run(adapters, row.adapter, n);
      if (row.wants_logits) wanted.push_back(static_cast<int64_t>(ids.size()) - 1);
    }
    if (adapters.adapters.size() == 1) adapters.segments.clear();
    CachedAttention attention(cache_, std::move(sequences), std::move(new_tokens));
    at::Tensor hidden =
        transformer_->forward(to_device(ids), to_device(positions), attention, adapters);
    if (wanted.empty()) return {};
    if (wanted.size() != ids.size()) hidden = hidden.index_select(0, to_device(wanted));
    return transformer_->logits(hidden, of_rows(adapters, wanted));
  }

 private:
  /// The view of the tokens that have logits.
  static model::AdapterView of_rows(const model::AdapterView& view,
                                    const std::vector<int64_t>& rows) {
    return view.segments.empty() ? view : view.of_tokens(at::tensor(rows, at::kLong));
  }
  static void add_run(model::AdapterView& view,
                      const std::shared_ptr<const model::LoraAdapter>& adapter, int64_t tokens) {
    const auto found = std::find(view.adapters.begin(), view.adapters.end(), adapter);
    const int64_t index = found - view.adapters.begin();
    if (found == view.adapters.end()) view.adapters.push_back(adapter);
    if (!view.segments.empty() && view.segments.back().first == index) {
      view.segments.back().second += tokens;
    } else {
      view.segments.emplace_back(index, tokens);
    }
  }
  at::Tensor to_device(const std::vector<int64_t>& values) const {
    return at::tensor(values, at::kLong).to(transformer_->device());
  }

  std::shared_ptr<model::Transformer> transformer_;
  KvCache cache_;
  int64_t capacity_tokens_;
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

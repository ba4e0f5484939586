#include "generate/step_model.h"

#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <map>
#include <optional>
#include <stdexcept>
#include <vector>

#include "base/system_files.h"
#include "generate/rank_threads.h"

namespace lorry::generate {
namespace {

int64_t longrope_length(const model::ModelSpec& spec) {
  for (const model::RopeSpec& rope : spec.ropes) {
    if (rope.type == model::RopeSpec::Type::kLongRope) return rope.original_max_position_embeddings;
  }
  return 0;
}

using Ranks = std::vector<std::shared_ptr<model::Transformer>>;

std::vector<at::Device> devices_of(const Ranks& ranks) {
  std::vector<at::Device> devices;
  for (const auto& rank : ranks) devices.push_back(rank->device());
  return devices;
}

/// The ranks' parts of the adapters in use, each made when it is first seen.
class AdapterParts {
 public:
  using Adapter = std::shared_ptr<const model::LoraAdapter>;

  /// By rank. Throws where an adapter cannot be divided.
  const std::vector<Adapter>& of(const Adapter& adapter, const Ranks& ranks) {
    std::erase_if(parts_, [](const auto& entry) { return entry.second.whole.expired(); });
    const auto [entry, is_new] = parts_.try_emplace(adapter.get());
    if (!is_new) return entry->second.by_rank;
    entry->second.whole = adapter;
    for (const auto& rank : ranks) {
      auto part = adapter->part_of(*rank->shard(), rank->device());
      if (!part.ok()) {
        parts_.erase(entry);
        throw std::runtime_error(part.error().message);
      }
      entry->second.by_rank.push_back(*std::move(part));
    }
    return entry->second.by_rank;
  }

 private:
  struct Entry {
    std::weak_ptr<const model::LoraAdapter> whole;
    std::vector<Adapter> by_rank;
  };
  std::map<const model::LoraAdapter*, Entry> parts_;
};

class TransformerStepModel final : public StepModel {
 public:
  TransformerStepModel(Ranks ranks, int64_t kv_cache_tokens)
      : ranks_(std::move(ranks)),
        cache_(ranks_[0]->spec().cache_layout(), kv_cache_tokens, ranks_[0]->dtype(),
               devices_of(ranks_)),
        keys_change_after_(longrope_length(ranks_[0]->spec())) {
    if (ranks_.size() > 1) threads_.emplace(ranks_[0]->ranks());
  }

  KvCache& cache() override { return cache_; }
  int64_t step_tokens() const override { return ranks_[0]->device().is_cpu() ? 512 : 4096; }
  int64_t keys_change_after() const override { return keys_change_after_; }

  /// After an illegal access, say, every call of CUDA fails until the process ends.
  bool device_works() override {
    const auto works = [](const auto& rank) {
      return at::zeros({1}, at::TensorOptions(rank->device())).template item<float>() == 0;
    };
    try {
      return std::all_of(ranks_.begin(), ranks_.end(), works);
    } catch (const std::exception&) {
      return false;
    }
  }

  at::Tensor step(std::span<const SequenceStep> steps) override {
    const Adapters adapters = adapters_of(steps);
    if (!threads_) return step_of(0, steps, adapters);
    std::vector<Adapters> parts;
    for (size_t rank = 0; rank < ranks_.size(); ++rank) parts.push_back(part_of(adapters, rank));
    std::vector<at::Tensor> logits(ranks_.size());
    threads_->run([&](int64_t rank) { logits[rank] = step_of(rank, steps, parts[rank]); });
    if (!logits[0].defined()) return {};
    for (at::Tensor& part : logits) part = part.to(ranks_[0]->device());
    return at::cat(logits, -1);
  }

 private:
  struct Adapters {
    model::AdapterView of_tokens, of_logits;  // segments of all new tokens; of those with logits
    std::vector<int32_t> of_step;             // index into their adapters
  };

  /// What one rank computes of it: its part of the vocabulary.
  at::Tensor step_of(int64_t rank, std::span<const SequenceStep> steps, const Adapters& adapters) {
    const model::Transformer& transformer = *ranks_[static_cast<size_t>(rank)];
    const c10::OptionalDeviceGuard guard(transformer.device());
    const ops::StepInputs inputs = make_step_inputs(steps, adapters.of_step, transformer.device());
    CachedAttention attention(cache_, steps, inputs, rank);
    at::Tensor hidden =
        transformer.forward(inputs.input_ids, inputs.positions, attention, adapters.of_tokens);
    const int64_t wanted = inputs.logit_rows.size(0);
    if (wanted == 0) return {};
    if (wanted != inputs.tokens) hidden = hidden.index_select(0, inputs.logit_rows);
    return transformer.logits(hidden, adapters.of_logits);
  }

  Adapters part_of(const Adapters& whole, size_t rank) {
    Adapters part = whole;
    for (auto* view : {&part.of_tokens, &part.of_logits}) {
      for (auto& adapter : view->adapters) {
        if (adapter) adapter = adapter_parts_.of(adapter, ranks_)[rank];
      }
    }
    return part;
  }

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

  Ranks ranks_;
  KvCache cache_;
  int64_t keys_change_after_;
  AdapterParts adapter_parts_;
  std::optional<RankThreads> threads_;  // where there are several ranks
};

int64_t cache_memory(at::Device device) {
  if (device.is_cpu()) return read_memory().size() / 4;
  return static_cast<int64_t>(static_cast<double>(ops::free_memory(device)) * 0.85);
}

}  // namespace

std::unique_ptr<StepModel> make_step_model(std::vector<std::shared_ptr<model::Transformer>> ranks,
                                           int64_t kv_cache_tokens) {
  return std::make_unique<TransformerStepModel>(std::move(ranks), kv_cache_tokens);
}

int64_t choose_kv_cache_tokens(const model::Transformer& transformer, int64_t wanted,
                               int64_t useful, int64_t shares) {
  if (wanted > 0) return wanted;
  // On a CPU all ranks share one memory.
  if (transformer.ranks() && transformer.device().is_cpu()) shares *= transformer.ranks()->size();
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

// Low-rank adapters in PEFT's form.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "model/config.h"
#include "store/bucket.h"

namespace lorry::model {

/// The linear maps of a block, in the names that PEFT's target_modules uses.
enum class Projection { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr std::array<Projection, 7> kProjections = {
    Projection::kQ,    Projection::kK,  Projection::kV,   Projection::kO,
    Projection::kGate, Projection::kUp, Projection::kDown};
/// "q_proj", ...
std::string_view projection_name(Projection projection);
std::optional<Projection> projection_from_name(std::string_view name);
/// (in, out) of the map.
std::pair<int64_t, int64_t> projection_shape(const ModelConfig& config, Projection projection);

struct LoraConfig {
  int64_t r = 16;
  double alpha = 16;
  double dropout = 0;
  bool use_rslora = false;  ///< scale by alpha / sqrt(r)
  std::vector<Projection> targets{kProjections.begin(), kProjections.end()};
  double scale() const;
};

/// One adapter: A (r, in) and B (out, r) for each layer and target, in float32.
///
/// y = x W^T + scale * (x A^T) B^T. A starts Kaiming-uniform(sqrt 5), B zero, so that a fresh
/// adapter changes nothing. Source: Hu et al. 2021, arXiv:2106.09685; A's start as in `peft`.
class LoraAdapter {
 public:
  struct Pair {
    at::Tensor a, b;
  };

  static std::shared_ptr<LoraAdapter> create(const ModelConfig& model, LoraConfig config,
                                             uint64_t seed, at::Device device);
  /// adapter_config.json and adapter_model.safetensors in `dir`, as `peft` saves them. Refuses an
  /// adapter for other shapes ("maybe another base model?") and kinds it does not know (DoRA, ...).
  static Result<std::shared_ptr<LoraAdapter>> load(const store::Bucket& bucket,
                                                   const std::string& dir, const ModelConfig& model,
                                                   at::Device device);
  /// Writes both files so that `peft.PeftModel.from_pretrained` opens them.
  Result<> save(const store::Bucket& bucket, const std::string& dir,
                const std::string& base_model_name) const;

  const LoraConfig& config() const { return config_; }
  /// nullptr if the projection is not a target.
  const Pair* find(int64_t layer, Projection projection) const;
  /// All tensors with their PEFT names, in a fixed order (layer, projection, A before B).
  std::vector<std::pair<std::string, at::Tensor>> named_parameters() const;

 private:
  Json peft_config(const std::string& base_model_name) const;

  LoraConfig config_;
  std::vector<std::array<std::optional<Pair>, 7>> layers_;
};

/// `weight` + scale * B A, computed in float32 and rounded once to the weight's dtype, as `peft`'s
/// merge does. weight: (out, in); returns a new tensor.
at::Tensor merged_weight(const at::Tensor& weight, const LoraAdapter::Pair& pair, double scale);

/// Which adapter each token of a step goes through. Holds no ownership: the adapters outlive it.
///
/// adapters[i] may be null (the base model). With one entry `runs` is empty: it serves all tokens.
/// Else runs[j] = {index into adapters, number of tokens}, covering the flat run in order.
struct AdapterView {
  std::vector<const LoraAdapter*> adapters;
  std::vector<std::pair<int64_t, int64_t>> runs;
  /// Dropout on x before A; training only.
  double dropout = 0;

  /// Nothing but the base model runs.
  bool is_base() const {
    for (const LoraAdapter* adapter : adapters) {
      if (adapter != nullptr) return false;
    }
    return true;
  }

  static AdapterView none() { return {}; }
  static AdapterView one(const LoraAdapter* adapter) { return {{adapter}, {}, 0}; }
};

/// y = x W^T + b for all tokens, plus each run's adapter. x: (T, in); weight: (out, in).
/// Differentiable. The adapter's matrices are cast to x's dtype for the product.
at::Tensor linear_with_adapters(const at::Tensor& x, const at::Tensor& weight,
                                const at::Tensor& bias, const AdapterView& adapters, int64_t layer,
                                Projection projection);

}  // namespace lorry::model

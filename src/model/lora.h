// Low-rank adapters in PEFT's form.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "model/lora_config.h"
#include "model/shard.h"
#include "model/spec.h"
#include "ops/weight.h"
#include "store/bucket.h"

namespace lorry::model {

/// One adapter over the linear maps of a model, in float32.
///
/// y = x W^T + scale * (x A^T) B^T. A starts Kaiming-uniform(sqrt 5), B zero, so that a fresh
/// adapter changes nothing. Source: Hu et al. 2021, arXiv:2106.09685; A's start as in `peft`.
/// With use_dora the sum's rows are given the length `magnitude`: Liu et al. 2024,
/// arXiv:2402.09353, as in `peft`'s lora/dora.py.
class LoraAdapter {
 public:
  /// What one module has. Undefined tensors are what the adapter leaves alone.
  struct Pair {
    at::Tensor a, b;                  ///< (r, in), (out, r)
    double scale = 1;                 ///< alpha / r, or alpha / sqrt(r)
    at::Tensor magnitude;             ///< (out); DoRA
    at::Tensor bias;                  ///< (out), instead of the base model's
    at::Tensor rounded_a, rounded_b;  ///< a and b as `round_to` left them; undefined: never called
  };
  /// Embedding and head that take the place of the base model's; undefined: the base model's.
  struct SavedModules {
    at::Tensor embed, head;         ///< (vocab_size, hidden_size)
    std::string prefix = "model.";  ///< ModelSpec::module_prefix
  };

  /// A fresh adapter for what `config` selects. Invalid input if that is nothing, or a name or
  /// pattern of it matches no module. `base` gives what some forms start from (DoRA's magnitudes,
  /// trained biases and saved modules); it may be null for plain ones.
  class BaseWeights;
  static Result<std::shared_ptr<LoraAdapter>> create(const ModelSpec& model, LoraConfig config,
                                                     uint64_t seed, at::Device device,
                                                     const BaseWeights* base = nullptr);
  /// adapter_config.json and adapter_model.safetensors in `dir`, as `peft` saves them. Refuses an
  /// adapter for other shapes ("maybe another base model?") and, by name, what would make the
  /// adapter compute something else than lorry does.
  static Result<std::shared_ptr<LoraAdapter>> load(const store::Bucket& bucket,
                                                   const std::string& dir, const ModelSpec& model,
                                                   at::Device device);
  /// What a rank needs of it, on the rank's device. Unsupported for DoRA, which needs the length of
  /// whole rows.
  Result<std::shared_ptr<const LoraAdapter>> part_of(const ModelShard& shard,
                                                     at::Device device) const;
  /// Writes both files so that `peft.PeftModel.from_pretrained` opens them.
  Result<> save(const store::Bucket& bucket, const std::string& dir,
                const std::string& base_model_name) const;

  const LoraConfig& config() const { return config_; }
  /// Trains on with another dropout than the adapter was made with.
  void set_dropout(double dropout) { config_.dropout = dropout; }
  /// nullptr if the module is not changed. `module` is an index into the map's modules.
  const Pair* find(int64_t linear, int64_t module) const;
  const SavedModules& saved() const { return saved_; }
  /// All trained tensors with their PEFT names, in a fixed order: module by module in the order of
  /// ModelSpec::linears, A, B, magnitude, bias; then embedding and head.
  std::vector<std::pair<std::string, at::Tensor>> named_parameters() const;
  /// Indices into named_parameters in the order in which products want the tensors in memory: a
  /// map's A's one after another, then its B's, then the rest.
  std::vector<size_t> memory_order() const;
  int64_t parameters() const;
  /// Keeps copies of A and B in a 16-bit dtype, so that products need not cast them. To be called
  /// again after each change of the parameters; where these lie in one buffer, it is one copy.
  void round_to(at::ScalarType dtype);

 private:
  friend class AdapterReader;
  void add_biases(const BaseWeights& base);
  Json peft_config(const std::string& base_model_name) const;

  LoraConfig config_;
  std::vector<LinearSpec> linears_;                      // the model's, for names
  std::vector<std::vector<std::optional<Pair>>> pairs_;  // by linear and module
  SavedModules saved_;
};

/// The base model's numbers that an adapter may start from.
class LoraAdapter::BaseWeights {
 public:
  virtual ~BaseWeights() = default;
  /// (out, in) in float32.
  virtual at::Tensor weight(int64_t linear, int64_t module) const = 0;
  /// (out), or undefined.
  virtual at::Tensor bias(int64_t linear, int64_t module) const = 0;
  virtual at::Tensor embed() const = 0;
  virtual at::Tensor head() const = 0;
};

/// `weight` with the pair merged in, in float32. weight: (out, in) of any dtype.
at::Tensor merged_weight(const at::Tensor& weight, const LoraAdapter::Pair& pair);

/// Which adapter each token of a step goes through. A step keeps the adapters it began with.
///
/// adapters[i] may be null (the base model). With one entry `segments` is empty: it serves all
/// tokens. Else segments[j] = {index into adapters, number of tokens}, covering the step in order.
struct AdapterView {
  std::vector<std::shared_ptr<const LoraAdapter>> adapters;
  std::vector<std::pair<int64_t, int64_t>> segments;
  /// Dropout on x before A; training only. The mask of a token is a function of its key and of the
  /// module (ops/dropout.h).
  double dropout = 0;
  at::Tensor dropout_keys;  ///< (T) int64; undefined without dropout

  /// Nothing but the base model runs.
  bool is_base() const;
  /// The view of some of the step's tokens, by ascending index.
  AdapterView of_tokens(const at::Tensor& indices) const;

  static AdapterView none() { return {}; }
  static AdapterView one(std::shared_ptr<const LoraAdapter> adapter) {
    return {{std::move(adapter)}, {}, 0, {}};
  }
};

/// y = x W^T + b for all tokens, plus each segment's adapter. x: (T, in). Differentiable in x and
/// in the adapters, whose matrices are cast to x's dtype for the product.
at::Tensor linear_with_adapters(const at::Tensor& x, const ops::Weight& weight,
                                const AdapterView& adapters, int64_t linear, int64_t module);

}  // namespace lorry::model

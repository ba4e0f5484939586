// The decoder: one block that interprets a ModelSpec.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "hub/model_dir.h"
#include "model/attention_view.h"
#include "model/lora.h"
#include "model/rope.h"
#include "model/safetensors.h"
#include "model/shard.h"
#include "model/spec.h"
#include "ops/device.h"
#include "ops/rank_group.h"
#include "ops/weight.h"
#include "store/bucket.h"

namespace lorry::model {

struct LoadOptions {
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  /// For generation alone: on a CPU, matrices in the form that multiplies few rows fastest, which
  /// has no gradient. In float32, bfloat16 and float16 matrices are multiplied as they are stored,
  /// where the processor can (ops/row_products.h); other matrices take memory of their own.
  bool pack = false;
  /// What the linear maps of the blocks are held as: kDense, kNf4, kFp8Rows, kInt8Rows or
  /// kInt4Groups. Norms and routers stay dense, what is stored as MXFP4 stays so; see
  /// `head_format`. Quantised weights are made of the stored numbers, one tensor after another,
  /// each read into memory of its own: beside the quantised model there are never more than the two
  /// largest stored tensors.
  ops::WeightFormat base_format = ops::WeightFormat::kDense;
  /// What the head is held as, and the embedding where they are tied: kDense, kFp8Rows or
  /// kInt8Rows.
  ops::WeightFormat head_format = ops::WeightFormat::kDense;
};

class ModelLoader;

/// What the blocks of one step share.
struct StepContext {
  AttentionView& attention;
  const AdapterView& adapters;
  std::vector<RopeAngles> angles;  ///< by ModelSpec::ropes
  /// For training: the outputs of norms and gates are not kept for the backward pass, which
  /// computes them again. Elsewhere it changes nothing.
  bool recomputes_light = false;
};

/// One model on one device. Steps may run from one thread at a time; the weights do not change
/// unless training owns them. T tokens of a packed step.
class Transformer {
 public:
  /// Reads config.json and the weights of a Hub-layout directory.
  static Result<std::shared_ptr<Transformer>> load(const store::Bucket& bucket,
                                                   const std::string& dir,
                                                   const LoadOptions& options);
  /// The weights of `dir` as `spec` describes them, whatever its config.json says.
  static Result<std::shared_ptr<Transformer>> load(const store::Bucket& bucket,
                                                   const std::string& dir, ModelSpec spec,
                                                   const LoadOptions& options);

  /// By ranks that hold the model together, one on each of `devices` (options.device is not used);
  /// a single one holds it whole. What ranks compute at the same time, each on a thread of its own
  /// (generate::RankThreads), is the model's step. The checkpoint is opened once.
  static Result<std::vector<std::shared_ptr<Transformer>>> load_ranks(
      const store::Bucket& bucket, const std::string& dir, const LoadOptions& options,
      const std::vector<at::Device>& devices);

  /// A rank's own sizes, where it holds a part of the model.
  const ModelSpec& spec() const { return spec_; }
  /// Null where the model is held whole, and then so is `ranks`.
  const ModelShard* shard() const { return shard_ ? &*shard_ : nullptr; }
  const std::shared_ptr<ops::RankGroup>& ranks() const { return ranks_; }
  /// What the checkpoint holds.
  const ModelSpec& whole_spec() const { return shard_ ? shard_->whole : spec_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }
  /// Of all weights, as they are held.
  int64_t weight_bytes() const;

  /// One step over T tokens of any number of sequences, concatenated. input_ids, positions: (T)
  /// int64 on the device. Returns the hidden state after the last norm, (T, hidden_size).
  /// Differentiable in the adapters (and in the weights, where they require gradients).
  /// The same as embed, run_block for each layer, finish.
  at::Tensor forward(const at::Tensor& input_ids, const at::Tensor& positions,
                     AttentionView& attention, const AdapterView& adapters) const;

  StepContext step_context(const at::Tensor& positions, AttentionView& attention,
                           const AdapterView& adapters) const;
  /// (T) -> (T, hidden_size).
  at::Tensor embed(const at::Tensor& input_ids, const AdapterView& adapters) const;
  /// (T, hidden_size) -> (T, hidden_size), through layer `layer`.
  at::Tensor run_block(int64_t layer, const at::Tensor& x, const StepContext& context) const;
  /// The last norm.
  at::Tensor finish(const at::Tensor& x) const;

  /// Logits of the rows asked for: (R, hidden_size) -> (R, vocab_size), in the model's dtype; of a
  /// rank its own part of the vocabulary (ModelShard::head). `adapters` may bring heads of their
  /// own; its segments count rows.
  at::Tensor logits(const at::Tensor& hidden, const AdapterView& adapters = {}) const;
  /// The head's matrix, (vocab_size, hidden_size), in the model's dtype; the embedding's where they
  /// are tied. Of models that are loaded without `pack` and `head_format`. logits =
  /// softcap(logit_scale * hidden head^T), see ModelSpec.
  const at::Tensor& head_weight() const { return tensors_[spec_.head]; }

  /// Every weight (buffers left out) under its canonical name (ModelSpec's), in a fixed order; a
  /// tied head is not repeated. The tensors are the model's own, not copies. After `load` they may
  /// lie in a file mapped read-only; whoever wants to write to them gives them memory of their own
  /// first. Only of models whose weights are all dense.
  NamedTensors named_weights() const;

  /// One module's weight, as an adapter sees it.
  const ops::Weight& weight(int64_t linear, int64_t module) const {
    return linears_[linear][module];
  }
  const at::Tensor& tensor(int index) const { return tensors_[index]; }

 private:
  friend class ModelLoader;
  Transformer() = default;
  static Result<std::vector<std::shared_ptr<Transformer>>> load_ranks(
      const store::Bucket& bucket, const std::string& dir, const ModelSpec& spec,
      const LoadOptions& options, const std::vector<at::Device>& devices);

  /// What a linear map reads.
  struct MapInput {
    at::Tensor x;
    std::function<at::Tensor()> again;  ///< computes x once more; empty: x is kept
  };

  at::Tensor norm(const at::Tensor& x, const NormSpec& spec) const;
  /// What the ranks' parts of a branch add up to.
  at::Tensor over_ranks(at::Tensor x) const;
  /// The head's rows that this rank has.
  at::Tensor own_head() const;
  /// `normed`, the norm of `x`, as the maps after it read it.
  MapInput after_norm(at::Tensor normed, const at::Tensor& x, const NormSpec& spec,
                      const StepContext& context) const;
  /// x + residual, and the norm of that.
  std::pair<at::Tensor, at::Tensor> add_and_norm(const at::Tensor& x, const at::Tensor& residual,
                                                 const NormSpec& spec) const;
  /// All modules' outputs side by side, adapters included, where ops::lora_linear serves the map;
  /// undefined elsewhere. Nothing keeps them for its backward pass.
  at::Tensor project_joined(int linear, const MapInput& input, const AdapterView& adapters) const;
  /// One output a module of the map, adapters included, a product each: where project_joined gives
  /// nothing.
  std::vector<at::Tensor> project_each(int linear, const at::Tensor& x,
                                       const AdapterView& adapters) const;
  /// What project_joined gave (`joined`), or project_each gives, as outputs of `sizes` columns: of
  /// the map's modules, or of parts of its one fused module.
  std::vector<at::Tensor> project_split(int linear, const at::Tensor& x,
                                        const AdapterView& adapters,
                                        const std::vector<int64_t>& sizes,
                                        const at::Tensor& joined) const;
  /// Of a map of one module.
  at::Tensor project_one(int linear, const MapInput& input, const AdapterView& adapters) const;
  at::Tensor attend(int64_t layer, const AttentionSpec& spec, const MapInput& input,
                    const StepContext& context) const;
  at::Tensor attend(int64_t layer, const MlaSpec& spec, const MapInput& input,
                    const StepContext& context) const;
  /// `adapters`: those of the tokens of `input`, which may be some of the step's.
  at::Tensor feed_forward(const MlpSpec& spec, const MapInput& input, const AdapterView& adapters,
                          bool recomputes_gate) const;
  at::Tensor feed_forward(const MoeSpec& spec, const MapInput& input, const AdapterView& adapters,
                          bool recomputes_gate) const;

  ModelSpec spec_;
  at::ScalarType dtype_ = at::kFloat;
  at::Device device_ = at::kCPU;
  std::shared_ptr<ops::RankGroup> ranks_;  // null: the model is held whole
  int64_t rank_ = 0;
  std::optional<ModelShard> shard_;
  std::vector<at::Tensor> tensors_;                // by ModelSpec::tensors
  std::vector<std::vector<ops::Weight>> linears_;  // by ModelSpec::linears, then module
  ops::Weight packed_head_;  // undefined unless LoadOptions::pack or head_format made one
  std::vector<RopeFrequencies> ropes_;
};

/// What config.json and generation_config.json say. Where they name no dtype, the stored one is
/// filled in (hub::ModelDir::stored_dtype).
Result<ModelSpec> load_model_spec(const hub::ModelDir& files);
Result<ModelSpec> load_model_spec(const store::Bucket& bucket, const std::string& dir);

/// A model of which one block at a time is in memory, for a pass over few tokens with weights that
/// need not fit. Not thread-safe.
class BlockwiseModel {
 public:
  /// Reads all but the blocks.
  static Result<std::unique_ptr<BlockwiseModel>> open(const store::Bucket& bucket,
                                                      const std::string& dir,
                                                      const LoadOptions& options);
  ~BlockwiseModel();
  /// Its `run_block` is for the block that was loaded last.
  const Transformer& model() const { return *model_; }
  /// Reads a block, after freeing the one before.
  Result<> load_block(int64_t layer);

 private:
  BlockwiseModel() = default;

  std::unique_ptr<ModelLoader> loader_;
  std::shared_ptr<Transformer> model_;
  int64_t loaded_ = -1;
};

/// Unsupported, naming the module, where a linear map of the blocks has a size that `format` does
/// not hold.
Result<> check_base_format(const ModelSpec& spec, ops::WeightFormat format);

/// Whether `Transformer::load` would find a supported architecture and every weight in its right
/// shape. Reads config.json and the safetensors headers only.
Result<> check_checkpoint(const store::Bucket& bucket, const std::string& dir);

/// What a fresh adapter may start from.
class TransformerBase final : public LoraAdapter::BaseWeights {
 public:
  explicit TransformerBase(const Transformer& model) : model_(model) {}
  at::Tensor weight(int64_t linear, int64_t module) const override;
  at::Tensor bias(int64_t linear, int64_t module) const override;
  at::Tensor embed() const override;
  at::Tensor head() const override;

 private:
  const Transformer& model_;
};

}  // namespace lorry::model

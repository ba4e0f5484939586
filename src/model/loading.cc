// Reading a checkpoint into a Transformer, and checking one without reading it.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "model/families.h"
#include "model/stored_weights.h"
#include "model/transformer.h"

namespace lorry::model {

Result<ModelSpec> load_model_spec(const hub::ModelDir& files) {
  auto parsed = parse_model_spec(files.config(), files.generation_config());
  if (!parsed.ok() && !files.path().empty()) return parsed.error().with_context(files.path());
  if (!parsed.ok()) return parsed.error();
  ModelSpec spec = std::move(parsed).value();
  if (spec.dtype.empty()) {
    LORRY_ASSIGN(spec.dtype, files.stored_dtype());
  }
  return spec;
}

Result<ModelSpec> load_model_spec(const store::Bucket& bucket, const std::string& dir) {
  LORRY_ASSIGN(const auto files, hub::ModelDir::open(bucket, dir));
  return load_model_spec(files);
}

/// The steps of Transformer::load.
class ModelLoader {
 public:
  ModelLoader(const SafetensorsReader& reader, ModelSpec spec, const LoadOptions& options)
      : options_(options), model_(new Transformer) {
    model_->spec_ = std::move(spec);
    model_->dtype_ = options.dtype;
    model_->device_ = options.device;
    stored_ = std::make_unique<StoredWeights>(reader, model_->spec_);
  }

  Result<std::shared_ptr<Transformer>> run() {
    LORRY_TRY(stored_->check());
    LORRY_TRY(untie());
    for (const TensorSpec& tensor : model_->spec_.tensors) {
      LORRY_ASSIGN(const at::Tensor stored, stored_->tensor(tensor));
      const auto dtype = tensor.is_buffer ? at::kFloat : options_.dtype;
      model_->tensors_.push_back(stored.to(options_.device, dtype));
    }
    for (const LinearSpec& linear : model_->spec_.linears) LORRY_TRY(load_linear(linear));
    if (options_.pack) LORRY_TRY(pack_head());
    for (const RopeSpec& rope : model_->spec_.ropes) {
      model_->ropes_.push_back(rope_frequencies(rope).to(options_.device));
    }
    return std::move(model_);
  }

 private:
  /// A checkpoint that says "tied" and yet holds two different matrices means the matrices.
  Result<> untie() {
    ModelSpec& spec = model_->spec_;
    LORRY_ASSIGN(const bool own_head, stored_->has_own_head());
    if (!own_head) return {};
    spec.tie_word_embeddings = false;
    spec.head = static_cast<int>(spec.tensors.size());
    spec.tensors.push_back({"lm_head.weight", {spec.vocab_size, spec.hidden_size}});
    spec.order.push_back({false, spec.head});
    return {};
  }

  Result<> load_linear(const LinearSpec& linear) {
    auto& weights = model_->linears_.emplace_back();
    for (const Module& module : linear.modules) {
      LORRY_ASSIGN(ops::Weight weight,
                   stored_->weight(linear, module, options_.dtype, options_.device));
      if (options_.pack && ops::pays_to_pack(weight)) {
        LORRY_ASSIGN(weight, ops::quantize(weight, ops::WeightFormat::kPacked));
      }
      weights.push_back(std::move(weight));
    }
    join(weights);
    return {};
  }

  /// Lets the modules of a map lie one after another in memory, so that their products are one.
  /// Weights that are mapped from their file stay there.
  static void join(std::vector<ops::Weight>& weights) {
    const auto join_field = [&](at::Tensor ops::Weight::*field) {
      std::vector<at::Tensor> parts;
      for (const ops::Weight& weight : weights) {
        const at::Tensor& part = weight.*field;
        if (!part.defined() || !part.storage().resizable())
          return;  // mapped memory has no allocator
        if (part.scalar_type() != weights[0].data.scalar_type()) return;
        parts.push_back(part);
      }
      const at::Tensor joined = at::cat(parts);
      int64_t row = 0;
      for (ops::Weight& weight : weights) {
        weight.*field = joined.narrow(0, row, weight.out).detach();
        row += weight.out;
      }
    };
    const bool dense = std::all_of(weights.begin(), weights.end(), [](const ops::Weight& weight) {
      return weight.format == ops::WeightFormat::kDense;
    });
    if (weights.size() == 1 || !dense) return;
    join_field(&ops::Weight::data);
    join_field(&ops::Weight::bias);
  }

  Result<> pack_head() {
    const auto head = ops::Weight::dense(model_->tensors_[model_->spec_.head]);
    if (!ops::pays_to_pack(head)) return {};
    LORRY_ASSIGN(model_->packed_head_, ops::quantize(head, ops::WeightFormat::kPacked));
    return {};
  }

  const LoadOptions& options_;
  std::shared_ptr<Transformer> model_;
  std::unique_ptr<StoredWeights> stored_;
};

Result<std::shared_ptr<Transformer>> Transformer::load(const store::Bucket& bucket,
                                                       const std::string& dir,
                                                       const LoadOptions& options) {
  LORRY_ASSIGN(ModelSpec spec, load_model_spec(bucket, dir));
  return load(bucket, dir, std::move(spec), options);
}

Result<std::shared_ptr<Transformer>> Transformer::load(const store::Bucket& bucket,
                                                       const std::string& dir, ModelSpec spec,
                                                       const LoadOptions& options) {
  LORRY_ASSIGN(const auto reader, SafetensorsReader::open(bucket, dir, "model"));
  try {
    const at::NoGradGuard no_grad;
    return ModelLoader(*reader, std::move(spec), options).run();
  } catch (const std::exception& e) {
    return unavailable(fmt::format("{}: loading the weights: {}", dir, e.what()));
  }
}

Result<> check_checkpoint(const store::Bucket& bucket, const std::string& dir) {
  LORRY_ASSIGN(const ModelSpec spec, load_model_spec(bucket, dir));
  LORRY_ASSIGN(const auto reader, SafetensorsReader::open(bucket, dir, "model"));
  return StoredWeights(*reader, spec).check();
}

NamedTensors Transformer::named_weights() const {
  NamedTensors weights;
  for (const auto& [is_linear, index] : spec_.order) {
    if (!is_linear) {
      const TensorSpec& tensor = spec_.tensors[index];
      if (!tensor.is_buffer) weights.emplace_back(tensor.name, tensors_[index]);
      continue;
    }
    for (size_t m = 0; m < linears_[index].size(); ++m) {
      const Module& module = spec_.linears[index].modules[m];
      const ops::Weight& weight = linears_[index][m];
      weights.emplace_back(weight_name(module), weight.data);
      if (weight.bias.defined()) weights.emplace_back(bias_name(module), weight.bias);
    }
  }
  return weights;
}

at::Tensor TransformerBase::weight(int64_t linear, int64_t module) const {
  return ops::dequantize(model_.weight(linear, module), at::kFloat);
}
at::Tensor TransformerBase::bias(int64_t linear, int64_t module) const {
  return model_.weight(linear, module).bias;
}
at::Tensor TransformerBase::embed() const { return model_.tensor(model_.spec().embed); }
at::Tensor TransformerBase::head() const { return model_.head_weight(); }

}  // namespace lorry::model

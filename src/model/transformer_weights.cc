// Reading a checkpoint into a Transformer, and checking one without reading it.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>  // join

#include <nlohmann/json.hpp>

#include "model/rope.h"
#include "model/transformer.h"

namespace lorry::model {
namespace {

constexpr const char* kEmbedName = "model.embed_tokens.weight";
constexpr const char* kHeadName = "lm_head.weight";

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("({})", fmt::join(shape, ", "));
}

Result<> check_weight(const SafetensorsReader& reader, const std::string& dir,
                      const std::string& name, const std::vector<int64_t>& shape) {
  if (!reader.contains(name)) {
    return corrupt_data(
        fmt::format("{}: tensor {} is missing from the safetensors files", dir, name));
  }
  if (reader.shape(name) != shape) {
    return corrupt_data(fmt::format("{}: tensor {} is {}, config.json asks for {}", dir, name,
                                    shape_text(reader.shape(name)), shape_text(shape)));
  }
  const std::string dtype = reader.dtype(name);
  if (dtype != "F32" && dtype != "BF16" && dtype != "F16") {
    return unsupported(
        fmt::format("{}: tensor {} is {}; lorry reads F32, BF16 and F16", dir, name, dtype));
  }
  return {};
}

/// Where a tied model's one matrix lies: nearly always under the embedding's name.
std::string stored_name(const SafetensorsReader& reader, const ModelConfig& config,
                        const std::string& name) {
  const bool swapped = config.tie_word_embeddings && name == kEmbedName &&
                       !reader.contains(kEmbedName) && reader.contains(kHeadName);
  return swapped ? kHeadName : name;
}

}  // namespace

Result<ModelConfig> load_model_config(const hub::ModelDir& files) {
  LORRY_ASSIGN(
      ModelConfig config,
      parse_model_config(files.config(), files.generation_config()).with_context(files.path()));
  if (config.dtype.empty()) {
    LORRY_ASSIGN(config.dtype, files.stored_dtype());
  }
  return config;
}

Result<ModelConfig> load_model_config(const store::Bucket& bucket, const std::string& dir) {
  LORRY_ASSIGN(const auto files, hub::ModelDir::open(bucket, dir));
  return load_model_config(files);
}

template <typename Self, typename Fn>
void Transformer::visit_weights(Self& self, Fn&& fn) {
  const ModelConfig& config = self.config_;
  const int64_t hidden = config.hidden_size;
  fn(kEmbedName, std::vector<int64_t>{config.vocab_size, hidden}, self.embed_tokens_);
  for (size_t layer = 0; layer < self.blocks_.size(); ++layer) {
    auto& block = self.blocks_[layer];
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    const auto norm = [&](const char* name, int64_t size, auto& tensor) {
      fn(prefix + name + ".weight", std::vector<int64_t>{size}, tensor);
    };
    const auto linear = [&](const char* module, Projection projection, bool bias) {
      const auto p = static_cast<size_t>(projection);
      const auto [in, out] = projection_shape(config, projection);
      const std::string name = fmt::format("{}{}.{}", prefix, module, projection_name(projection));
      fn(name + ".weight", std::vector<int64_t>{out, in}, block.weight[p]);
      if (bias) fn(name + ".bias", std::vector<int64_t>{out}, block.bias[p]);
    };
    norm("input_layernorm", hidden, block.input_norm);
    linear("self_attn", Projection::kQ, config.qkv_bias);
    linear("self_attn", Projection::kK, config.qkv_bias);
    linear("self_attn", Projection::kV, config.qkv_bias);
    linear("self_attn", Projection::kO, config.o_bias);
    if (config.qk_norm) {
      norm("self_attn.q_norm", config.head_dim, block.q_norm);
      norm("self_attn.k_norm", config.head_dim, block.k_norm);
    }
    norm("post_attention_layernorm", hidden, block.post_attention_norm);
    linear("mlp", Projection::kGate, config.mlp_bias);
    linear("mlp", Projection::kUp, config.mlp_bias);
    linear("mlp", Projection::kDown, config.mlp_bias);
  }
  fn("model.norm.weight", std::vector<int64_t>{hidden}, self.norm_);
  if (!config.tie_word_embeddings) {
    fn(kHeadName, std::vector<int64_t>{config.vocab_size, hidden}, self.lm_head_);
  }
}

Result<> Transformer::read_weights(const SafetensorsReader& reader, at::ScalarType dtype,
                                   at::Device device) {
  Result<> result;
  visit_weights(*this, [&](const std::string& name, const auto&, at::Tensor& tensor) {
    if (!result.ok()) return;
    auto stored = reader.tensor(stored_name(reader, config_, name));
    if (!stored.ok()) {
      result = std::move(stored).error();
      return;
    }
    tensor = stored->to(device, dtype);
  });
  return result;
}

Result<std::shared_ptr<Transformer>> Transformer::load(const store::Bucket& bucket,
                                                       const std::string& dir, at::ScalarType dtype,
                                                       at::Device device) {
  LORRY_TRY(check_checkpoint(bucket, dir));
  std::shared_ptr<Transformer> model(new Transformer);
  LORRY_ASSIGN(model->config_, load_model_config(bucket, dir));
  LORRY_ASSIGN(const auto reader, SafetensorsReader::open(bucket, dir, "model"));
  try {
    const at::NoGradGuard no_grad;
    // A checkpoint that says "tied" and yet holds two different matrices means the matrices.
    if (model->config_.tie_word_embeddings && reader->contains(kEmbedName) &&
        reader->contains(kHeadName)) {
      LORRY_ASSIGN(const at::Tensor embed, reader->tensor(kEmbedName));
      LORRY_ASSIGN(const at::Tensor head, reader->tensor(kHeadName));
      const bool same = embed.sizes() == head.sizes() &&
                        embed.scalar_type() == head.scalar_type() && at::equal(embed, head);
      model->config_.tie_word_embeddings = same;
    }
    model->blocks_.resize(model->config_.num_hidden_layers);
    LORRY_TRY(model->read_weights(*reader, dtype, device));
    const RopeFrequencies rope = rope_frequencies(model->config_.rope, model->config_.head_dim);
    model->inv_freq_ = rope.inv_freq.to(device);
    model->rope_attention_scale_ = rope.attention_scale;
  } catch (const std::exception& e) {
    return unavailable(fmt::format("{}: loading the weights: {}", dir, e.what()));
  }
  return model;
}

Result<> check_checkpoint(const store::Bucket& bucket, const std::string& dir) {
  Transformer model;
  LORRY_ASSIGN(model.config_, load_model_config(bucket, dir));
  LORRY_ASSIGN(const auto reader, SafetensorsReader::open(bucket, dir, "model"));
  model.blocks_.resize(model.config_.num_hidden_layers);
  Result<> result;
  Transformer::visit_weights(model, [&](const std::string& name, const auto& shape, at::Tensor&) {
    if (result.ok()) {
      result = check_weight(*reader, dir, stored_name(*reader, model.config_, name), shape);
    }
  });
  return result;
}

NamedTensors Transformer::named_weights() const {
  NamedTensors weights;
  visit_weights(*this, [&](const std::string& name, const auto&, const at::Tensor& tensor) {
    weights.emplace_back(name, tensor);
  });
  return weights;
}

}  // namespace lorry::model

// Random checkpoints and adapters for tests, in a bucket of their own.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/json.h"
#include "model/lora.h"
#include "model/safetensors.h"
#include "model/transformer.h"
#include "store/bucket.h"

namespace lorry::train {

/// A directory that goes with the object.
class TestBucket {
 public:
  TestBucket() {
    std::string name = (std::filesystem::temp_directory_path() / "lorry-train-XXXXXX").string();
    dir_ = mkdtemp(name.data());
    bucket_ = *store::Bucket::open(dir_, true);
  }
  ~TestBucket() { std::filesystem::remove_all(dir_); }
  const std::shared_ptr<store::Bucket>& operator*() const { return bucket_; }
  const std::string& dir() const { return dir_; }

 private:
  std::string dir_;
  std::shared_ptr<store::Bucket> bucket_;
};

struct TestModel {
  int64_t layers = 2, hidden = 64, width = 96, vocab = 131;
  at::ScalarType dtype = at::kFloat;
  double deviation = 0.1;  ///< of the weights
};

/// A Llama checkpoint of random numbers in models/m, written a tensor at a time.
inline void write_checkpoint(const store::Bucket& bucket, const TestModel& m) {
  Json config{{"architectures", {"LlamaForCausalLM"}},
              {"model_type", "llama"},
              {"vocab_size", m.vocab},
              {"hidden_size", m.hidden},
              {"intermediate_size", m.width},
              {"num_hidden_layers", m.layers},
              {"num_attention_heads", 4},
              {"num_key_value_heads", 2},
              {"max_position_embeddings", 512},
              {"rms_norm_eps", 1e-6},
              {"rope_theta", 10000.0},
              {"tie_word_embeddings", false},
              {"torch_dtype", m.dtype == at::kFloat ? "float32" : "bfloat16"}};
  ASSERT_TRUE(bucket.write("models/m/config.json", dump_json(config)).ok());
  std::vector<model::TensorHeader> tensors;
  const auto add = [&](std::string name, std::vector<int64_t> shape) {
    tensors.push_back({std::move(name), m.dtype, std::move(shape)});
  };
  add("model.embed_tokens.weight", {m.vocab, m.hidden});
  for (int64_t i = 0; i < m.layers; ++i) {
    const std::string block = "model.layers." + std::to_string(i) + ".";
    for (const char* name : {"q_proj", "o_proj"}) {
      add(block + "self_attn." + name + ".weight", {m.hidden, m.hidden});
    }
    for (const char* name : {"k_proj", "v_proj"}) {
      add(block + "self_attn." + name + ".weight", {m.hidden / 2, m.hidden});
    }
    for (const char* name : {"gate_proj", "up_proj"}) {
      add(block + "mlp." + name + ".weight", {m.width, m.hidden});
    }
    add(block + "mlp.down_proj.weight", {m.hidden, m.width});
    add(block + "input_layernorm.weight", {m.hidden});
    add(block + "post_attention_layernorm.weight", {m.hidden});
  }
  add("model.norm.weight", {m.hidden});
  add("lm_head.weight", {m.vocab, m.hidden});
  at::manual_seed(1);
  const auto writer =
      model::SafetensorsWriter::create(bucket, "models/m/model.safetensors", tensors);
  ASSERT_TRUE(writer.ok());
  for (const auto& tensor : tensors) {
    const at::Tensor numbers =
        tensor.shape.size() == 1 ? at::ones(tensor.shape) : at::randn(tensor.shape) * m.deviation;
    ASSERT_TRUE((*writer)->add(numbers.to(m.dtype)).ok());
  }
  ASSERT_TRUE((*writer)->commit().ok());
}

inline std::shared_ptr<model::Transformer> load_model(const store::Bucket& bucket,
                                                      at::ScalarType dtype,
                                                      const std::string& dir = "models/m") {
  auto model = model::Transformer::load(bucket, dir, {dtype, at::kCPU});
  EXPECT_TRUE(model.ok()) << (model.ok() ? "" : model.error().message);
  return *model;
}

/// An adapter on all linear maps whose B is random too.
inline std::shared_ptr<model::LoraAdapter> random_adapter(const model::Transformer& model,
                                                          model::LoraConfig config,
                                                          double deviation) {
  auto adapter = *model::LoraAdapter::create(model.spec(), std::move(config), 7, at::kCPU);
  at::manual_seed(2);
  const at::NoGradGuard no_grad;
  for (auto [name, tensor] : adapter->named_parameters()) {
    if (name.find("lora_B") != std::string::npos) tensor.normal_(0, deviation);
  }
  return adapter;
}

}  // namespace lorry::train

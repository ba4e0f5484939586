#include "hub/model_dir.h"

#include <arrow/io/interfaces.h>
#include <fmt/format.h>

#include <algorithm>

#include "store/arrow_error.h"

namespace lorry::hub {
namespace {

/// A dtype of safetensors by its name in config.json; empty if models are not run in it.
std::string_view config_name(std::string_view dtype) {
  if (dtype == "BF16") return "bfloat16";
  if (dtype == "F16") return "float16";
  return dtype == "F32" ? "float32" : "";
}

/// What errors begin with; nothing at the root of a bucket, which has no name.
std::string where(const std::string& dir) { return dir.empty() ? "" : dir + ": "; }

/// How PyTorch's weights become safetensors, where one line does it: those of an adapter, whose
/// names stay as they are. A model's may share tensors, which save_pretrained knows of.
std::string conversion(const std::string& path, const std::string& wanted) {
  if (path.ends_with("adapter_model.bin")) {
    return fmt::format(
        ": python -c 'import torch, safetensors.torch as s; "
        "s.save_file(torch.load(\"adapter_model.bin\", weights_only=True), \"{}\")'",
        wanted);
  }
  if (!path.ends_with(".bin")) return "";
  return ", which from_pretrained and save_pretrained of transformers write";
}

/// Names of the checkpoint's files.
Result<std::vector<std::string>> find_files(const store::Bucket& bucket, const std::string& dir,
                                            const std::string& stem) {
  const std::string single = stem + ".safetensors";
  LORRY_ASSIGN(const bool is_single, bucket.exists(store::join_path(dir, single)));
  if (is_single) return std::vector<std::string>{single};
  const std::string index_path = store::join_path(dir, single + ".index.json");
  LORRY_ASSIGN(const bool is_sharded, bucket.exists(index_path));
  if (is_sharded) {
    LORRY_ASSIGN(const std::string text, bucket.read(index_path));
    LORRY_ASSIGN(const WeightIndex index, parse_weight_index(text, index_path));
    std::vector<std::string> names;
    for (const auto& [file, tensors] : index) names.push_back(file);
    return names;
  }
  LORRY_ASSIGN(const auto listing, bucket.list(dir));
  for (const auto& object : listing) {
    if (object.path.ends_with(".bin") || object.path.ends_with(".gguf") ||
        object.path.ends_with(".pth")) {
      return unsupported(fmt::format("{}: its weights are not safetensors; lorry needs {}{}",
                                     object.path, single, conversion(object.path, single)));
    }
  }
  return not_found(
      fmt::format("{}neither {} nor {}.index.json is there", where(dir), single, single));
}

Result<> add_file(const store::Bucket& bucket, const std::string& path, Checkpoint& checkpoint) {
  LORRY_ASSIGN(const bool exists, bucket.exists(path));
  if (!exists) {
    return not_found(fmt::format(
        "{}: missing, though the index names it; copy or download the model again", path));
  }
  LORRY_ASSIGN(auto input, bucket.open_input(path));
  LORRY_ASSIGN(const int64_t bytes, store::from_arrow(input->GetSize(), path));
  LORRY_ASSIGN(auto header, read_safetensors_header(*input, path, bytes));
  for (auto& [name, info] : header.tensors) {
    checkpoint.tensors.insert_or_assign(
        name, Checkpoint::Tensor{std::move(info), checkpoint.files.size()});
  }
  checkpoint.files.push_back({path, std::move(input)});
  return {};
}

}  // namespace

Result<Checkpoint> open_checkpoint(const store::Bucket& bucket, const std::string& dir,
                                   const std::string& stem) {
  Checkpoint checkpoint;
  LORRY_ASSIGN(const auto names, find_files(bucket, dir, stem));
  for (const auto& name : names) {
    LORRY_TRY(add_file(bucket, store::join_path(dir, name), checkpoint));
  }
  return checkpoint;
}

std::string stored_dtype(const Checkpoint& checkpoint) {
  std::map<std::string_view, uint64_t> bytes;
  for (const auto& [name, tensor] : checkpoint.tensors) {
    const std::string_view dtype = config_name(tensor.dtype);
    if (dtype.empty()) continue;
    // "model.embed_tokens.weight"; the language model of a multimodal one has a longer prefix.
    if (name.ends_with("embed_tokens.weight")) return std::string(dtype);
    bytes[dtype] += tensor.end - tensor.begin;
  }
  if (bytes.empty()) return "float32";
  const auto less = [](const auto& a, const auto& b) { return a.second < b.second; };
  return std::string(std::max_element(bytes.begin(), bytes.end(), less)->first);
}

TextFiles text_files(const store::Bucket& bucket, std::string dir) {
  return
      [&bucket, dir = std::move(dir)](std::string_view name) -> Result<std::optional<std::string>> {
        const std::string path = store::join_path(dir, name);
        LORRY_ASSIGN(const bool exists, bucket.exists(path));
        if (!exists) return std::optional<std::string>();
        LORRY_ASSIGN(std::string text, bucket.read(path));
        return std::optional<std::string>(std::move(text));
      };
}

Result<ModelDir> ModelDir::open(const store::Bucket& bucket, const std::string& dir) {
  ModelDir model(bucket, dir);
  const TextFiles read = model.text_files();
  LORRY_ASSIGN(const auto config, read("config.json"));
  if (!config) {
    return not_found(fmt::format("{}no config.json; is this a model's directory?", where(dir)));
  }
  LORRY_ASSIGN(model.config_, parse_json(*config, store::join_path(dir, "config.json")));
  LORRY_ASSIGN(const auto generation, read("generation_config.json"));
  if (generation) {
    LORRY_ASSIGN(model.generation_config_,
                 parse_json(*generation, store::join_path(dir, "generation_config.json")));
  }
  return model;
}

Result<std::string> ModelDir::stored_dtype() const {
  LORRY_ASSIGN(const Checkpoint checkpoint, open_checkpoint());
  return hub::stored_dtype(checkpoint);
}

}  // namespace lorry::hub

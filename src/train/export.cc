#include "train/export.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "model/checkpoint_edits.h"
#include "model/safetensors.h"

namespace lorry::train {
namespace {

constexpr const char* kTextFiles[] = {"tokenizer.json",
                                      "tokenizer_config.json",
                                      "special_tokens_map.json",
                                      "added_tokens.json",
                                      "vocab.json",
                                      "merges.txt",
                                      "tokenizer.model",
                                      "chat_template.jinja",
                                      "chat_template.json"};
constexpr const char* kModelFiles[] = {"config.json", "generation_config.json"};

template <size_t N>
Result<> copy_files(const store::Bucket& bucket, const char* const (&names)[N],
                    const std::string& from, const std::string& to) {
  for (const char* name : names) {
    LORRY_ASSIGN(const bool exists, bucket.exists(from + "/" + name));
    if (!exists) continue;
    LORRY_ASSIGN(const std::string bytes, bucket.read(from + "/" + name));
    LORRY_TRY(bucket.write(to + "/" + name, bytes));
  }
  return {};
}

/// Tokenizer and chat templates, the named ones too.
Result<> copy_text_files(const store::Bucket& bucket, const std::string& from,
                         const std::string& to) {
  LORRY_TRY(copy_files(bucket, kTextFiles, from, to));
  LORRY_ASSIGN(const auto templates, bucket.list(from + "/additional_chat_templates"));
  for (const auto& file : templates) {
    if (file.is_directory || !file.path.ends_with(".jinja")) continue;
    LORRY_ASSIGN(const std::string bytes, bucket.read(file.path));
    LORRY_TRY(bucket.write(to + file.path.substr(from.size()), bytes));
  }
  return {};
}

Result<std::shared_ptr<model::SafetensorsReader>> open_in_order(const store::Bucket& bucket,
                                                                const std::string& model_dir) {
  return model::SafetensorsReader::open(bucket, model_dir, "model",
                                        model::SafetensorsReader::Access::kInOrder);
}

using Transform = std::function<at::Tensor(const std::string&, const at::Tensor&)>;

/// Tensors of the checkpoint, cut into files of at most `max_file_bytes`.
Result<std::vector<std::vector<model::TensorHeader>>> plan_files(
    const model::SafetensorsReader& reader, int64_t max_file_bytes, int64_t& total_bytes) {
  std::vector<std::vector<model::TensorHeader>> files(1);
  int64_t bytes = 0;
  total_bytes = 0;
  for (const std::string& name : reader.names()) {
    LORRY_ASSIGN(auto tensor, reader.header(name));
    const int64_t size = tensor.bytes();
    if (bytes > 0 && bytes + size > max_file_bytes) {
      files.emplace_back();
      bytes = 0;
    }
    files.back().push_back(std::move(tensor));
    bytes += size;
    total_bytes += size;
  }
  return files;
}

/// Writes every tensor of the checkpoint in `model_dir`, changed by `transform`, to `out_dir`, one
/// after the other: no more than one is in memory.
Result<> rewrite_checkpoint(const store::Bucket& bucket, const std::string& model_dir,
                            const std::string& out_dir, int64_t max_file_bytes,
                            const model::SafetensorsReader& reader, const Transform& transform) {
  const at::NoGradGuard no_grad;
  LORRY_TRY(bucket.remove(out_dir));
  int64_t total_bytes = 0;
  LORRY_ASSIGN(const auto files, plan_files(reader, max_file_bytes, total_bytes));
  Json weight_map = Json::object();
  for (size_t i = 0; i < files.size(); ++i) {
    const std::string file =
        files.size() == 1 ? "model.safetensors"
                          : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, files.size());
    LORRY_ASSIGN(const auto writer,
                 model::SafetensorsWriter::create(bucket, out_dir + "/" + file, files[i]));
    for (const model::TensorHeader& tensor : files[i]) {
      LORRY_ASSIGN(const at::Tensor stored, reader.tensor(tensor.name));
      LORRY_TRY(writer->add(transform(tensor.name, stored)));
      weight_map[tensor.name] = file;
    }
    LORRY_TRY(writer->commit());
  }
  if (files.size() > 1) {
    const Json index{{"metadata", {{"total_size", total_bytes}}}, {"weight_map", weight_map}};
    LORRY_TRY(bucket.write(out_dir + "/model.safetensors.index.json", dump_json(index, 2)));
  }
  LORRY_TRY(copy_files(bucket, kModelFiles, model_dir, out_dir));
  return copy_text_files(bucket, model_dir, out_dir);
}

}  // namespace

Result<> export_adapter(const store::Bucket& bucket, const model::LoraAdapter& adapter,
                        const std::string& base_name, const std::string& model_dir,
                        const std::string& out_dir) {
  LORRY_TRY(bucket.remove(out_dir));
  LORRY_TRY(adapter.save(bucket, out_dir, base_name));
  return copy_text_files(bucket, model_dir, out_dir);
}

Result<> export_merged(const store::Bucket& bucket, const model::ModelSpec& spec,
                       const model::LoraAdapter& adapter, const std::string& model_dir,
                       const std::string& out_dir, int64_t max_file_bytes) {
  LORRY_ASSIGN(const auto reader, open_in_order(bucket, model_dir));
  LORRY_ASSIGN(const auto edits, model::CheckpointEdits::merging(spec, adapter, *reader));
  return rewrite_checkpoint(
      bucket, model_dir, out_dir, max_file_bytes, *reader,
      [&](const std::string& name, const at::Tensor& weight) { return edits.apply(name, weight); });
}

Result<> export_full(const store::Bucket& bucket, const model::ModelSpec& spec,
                     const std::vector<std::string>& names, const std::vector<at::Tensor>& params,
                     const std::string& model_dir, const std::string& out_dir,
                     int64_t max_file_bytes) {
  LORRY_ASSIGN(const auto reader, open_in_order(bucket, model_dir));
  std::map<std::string, at::Tensor> by_name;
  for (size_t i = 0; i < names.size(); ++i) by_name[names[i]] = params[i];
  LORRY_ASSIGN(const auto edits, model::CheckpointEdits::replacing(spec, by_name, *reader));
  return rewrite_checkpoint(
      bucket, model_dir, out_dir, max_file_bytes, *reader,
      [&](const std::string& name, const at::Tensor& stored) { return edits.apply(name, stored); });
}

}  // namespace lorry::train

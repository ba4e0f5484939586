#include "sources/model_files.h"

#include <arrow/io/interfaces.h>  // RandomAccessFile
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/json.h"

namespace lorry::sources {
namespace {

constexpr char kIndex[] = "model.safetensors.index.json";

using Names = std::vector<std::string>;

/// Small files by name; weights are chosen by choose_weights.
bool is_companion(const std::string& name) {
  static const std::set<std::string> kNames = {"config.json",        "generation_config.json",
                                               "tokenizer.json",     "tokenizer_config.json",
                                               "tokenizer.model",    "special_tokens_map.json",
                                               "added_tokens.json",  "chat_template.jinja",
                                               "chat_template.json", "vocab.json",
                                               "merges.txt",         "vocab.txt"};
  if (kNames.contains(name) || is_named_template(name)) return true;
  std::string upper = name;
  std::transform(upper.begin(), upper.end(), upper.begin(), [](char c) { return std::toupper(c); });
  return upper.starts_with("README") || upper.starts_with("LICENSE") ||
         upper.starts_with("LICENCE") || upper.starts_with("NOTICE");
}

Result<> check_is_model(const ModelSource& source) {
  if (const auto* file = source.find("config.json")) {
    LORRY_ASSIGN(const auto text, read_whole(*file));
    LORRY_ASSIGN(const auto config, parse_json(text, file->path));
    if (!config.is_object())
      return invalid_input(fmt::format("{} is not a JSON object", file->path));
    return {};
  }
  if (source.find("adapter_config.json") != nullptr)
    return invalid_input(fmt::format(
        "{} holds a PEFT adapter, not a model; import its base model, and give the adapter to "
        "lorry train --adapter",
        source.name));
  return invalid_input(
      fmt::format("{} is not a model directory: it has no config.json", source.name));
}

/// What the index says each file holds.
Result<hub::WeightIndex> read_index(const ModelSource& source) {
  const ModelFile& file = *source.find(kIndex);
  LORRY_ASSIGN(const auto text, read_whole(file));
  return hub::parse_weight_index(text, file.path);
}

Result<Names> choose_weights(const ModelSource& source) {
  if (source.find("model.safetensors") != nullptr) return Names{"model.safetensors"};
  if (source.find(kIndex) != nullptr) {
    LORRY_ASSIGN(const auto tensors, read_index(source));
    Names files = {kIndex};
    for (const auto& [file, names] : tensors) {
      if (source.find(file) == nullptr)
        return not_found(fmt::format("{}/{} is missing; {} names it", source.name, file, kIndex));
      files.push_back(file);
    }
    return files;
  }
  for (const auto& file : source.files) {
    if (file.name.ends_with(".safetensors") && !file.name.starts_with("consolidated"))
      return not_found(fmt::format("{} has {} but neither model.safetensors nor {}", source.name,
                                   file.name, kIndex));
  }
  for (const auto& file : source.files) {
    const std::string& name = file.name;
    if (name.ends_with(".bin") || name.ends_with(".pth") || name.ends_with(".gguf") ||
        name.starts_with("consolidated"))
      return unsupported(fmt::format(
          "{}: weights in {} are not supported; lorry reads model.safetensors (of a "
          "Hub model there may be a revision or a copy that has it{})",
          source.name, name,
          name.ends_with(".bin") ? "; from_pretrained and save_pretrained of transformers write it"
                                 : ""));
  }
  return not_found(
      fmt::format("{} has no weights: no model.safetensors and no {}", source.name, kIndex));
}

}  // namespace

bool is_named_template(std::string_view name) {
  const std::string directory = std::string(kTemplateDirectory) + "/";
  return name.starts_with(directory) && name.ends_with(".jinja") &&
         name.find('/', directory.size()) == name.npos;
}

Result<hub::SafetensorsHeader> read_header(const ModelFile& file) {
  LORRY_ASSIGN(const auto opened, file.open());
  return hub::read_safetensors_header(*opened, file.path, file.bytes);
}

Result<std::vector<ModelFile>> choose_model_files(const ModelSource& source) {
  LORRY_TRY(check_is_model(source));
  LORRY_ASSIGN(Names names, choose_weights(source));
  for (const auto& file : source.files) {
    if (is_companion(file.name)) names.push_back(file.name);
  }
  if (std::count(names.begin(), names.end(), "tokenizer.json") == 0)
    return not_found(fmt::format(
        "{} has no tokenizer.json; save the tokenizer with a fast tokenizer of transformers first",
        source.name));
  std::sort(names.begin(), names.end());
  std::vector<ModelFile> files;
  for (const auto& name : names) files.push_back(*source.find(name));
  return files;
}

Result<> check_weights(const ModelSource& source, const std::vector<ModelFile>& files) {
  hub::WeightIndex index;
  const auto has_index = [](const ModelFile& file) { return file.name == kIndex; };
  if (std::any_of(files.begin(), files.end(), has_index)) {
    LORRY_ASSIGN(index, read_index(source));
  }
  for (const auto& file : files) {
    if (!file.name.ends_with(".safetensors")) continue;
    LORRY_ASSIGN(const auto header, read_header(file));
    for (const auto& name : index[file.name])
      if (!header.tensors.contains(name))
        return corrupt_data(
            fmt::format("{} has no tensor {}, which {} says it holds", file.path, name, kIndex));
  }
  return {};
}

}  // namespace lorry::sources

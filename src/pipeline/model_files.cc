#include "pipeline/model_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "base/json.h"

namespace lorry::pipeline {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as the safetensors library limits it
constexpr char kIndex[] = "model.safetensors.index.json";

static_assert(std::endian::native == std::endian::little, "safetensors headers are little-endian");

Result<std::string> read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return unavailable(fmt::format("cannot read {}", path.string()));
  return text.str();
}

/// Small files by name; weights are chosen by choose_weights.
bool is_companion(const std::string& name) {
  static const std::set<std::string> kNames = {"config.json",        "generation_config.json",
                                               "tokenizer.json",     "tokenizer_config.json",
                                               "tokenizer.model",    "special_tokens_map.json",
                                               "added_tokens.json",  "chat_template.jinja",
                                               "chat_template.json", "vocab.json",
                                               "merges.txt",         "vocab.txt"};
  if (kNames.contains(name)) return true;
  std::string upper = name;
  std::transform(upper.begin(), upper.end(), upper.begin(), [](char c) { return std::toupper(c); });
  return upper.starts_with("README") || upper.starts_with("LICENSE") ||
         upper.starts_with("LICENCE") || upper.starts_with("NOTICE");
}

Result<> check_is_model(const std::string& directory) {
  std::error_code error;
  if (!fs::exists(directory, error))
    return not_found(fmt::format("there is no directory {}", directory));
  if (!fs::is_directory(directory, error))
    return invalid_input(
        fmt::format("{} is not a directory; a model is a directory with config.json", directory));
  const fs::path dir = directory;
  if (fs::exists(dir / "config.json", error)) {
    LORRY_ASSIGN(const auto text, read_file(dir / "config.json"));
    LORRY_ASSIGN(const auto config, parse_json(text, (dir / "config.json").string()));
    if (!config.is_object())
      return invalid_input(fmt::format("{}/config.json is not a JSON object", directory));
    return {};
  }
  if (fs::exists(dir / "adapter_config.json", error))
    return invalid_input(fmt::format(
        "{} holds a PEFT adapter, not a model; import its base model, and give the adapter to "
        "lorry train --adapter",
        directory));
  return invalid_input(
      fmt::format("{} is not a model directory: it has no config.json", directory));
}

/// The weight files that the index names, after checking that it tells the truth.
Result<std::vector<std::string>> indexed_weights(const fs::path& dir) {
  const std::string index_path = (dir / kIndex).string();
  LORRY_ASSIGN(const auto text, read_file(index_path));
  LORRY_ASSIGN(const auto index, parse_json(text, index_path));
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (map == index.end() || !map->is_object() || map->empty())
    return corrupt_data(fmt::format("{} has no weight_map", index_path));
  std::map<std::string, std::vector<std::string>> tensors;  // file -> names
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || file.get<std::string>().find('/') != std::string::npos)
      return corrupt_data(fmt::format("{}: {} has no file name", index_path, tensor));
    tensors[file.get<std::string>()].push_back(tensor);
  }
  std::vector<std::string> files;
  for (const auto& [file, names] : tensors) {
    std::error_code error;
    if (!fs::exists(dir / file, error))
      return not_found(fmt::format("{} is missing; {} names it", (dir / file).string(), kIndex));
    LORRY_ASSIGN(const auto there, read_safetensors_names((dir / file).string()));
    const std::set<std::string> have(there.begin(), there.end());
    for (const auto& name : names)
      if (!have.contains(name))
        return corrupt_data(fmt::format("{} has no tensor {}, which {} says it holds",
                                        (dir / file).string(), name, kIndex));
    files.push_back(file);
  }
  files.push_back(kIndex);
  return files;
}

Result<std::vector<std::string>> choose_weights(const fs::path& dir) {
  std::error_code error;
  if (fs::exists(dir / "model.safetensors", error)) {
    LORRY_TRY(read_safetensors_names((dir / "model.safetensors").string()));
    return std::vector<std::string>{"model.safetensors"};
  }
  if (fs::exists(dir / kIndex, error)) return indexed_weights(dir);
  for (const auto& entry : fs::directory_iterator(dir, error)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".bin") || name.ends_with(".pth") || name.ends_with(".gguf"))
      return unsupported(
          fmt::format("{}: weights in {} are not supported; lorry reads model.safetensors",
                      dir.string(), name));
    if (name.ends_with(".safetensors"))
      return not_found(fmt::format("{} has {} but neither model.safetensors nor {}", dir.string(),
                                   name, kIndex));
  }
  return not_found(
      fmt::format("{} has no weights: no model.safetensors and no {}", dir.string(), kIndex));
}

/// [begin, end) of one tensor's data, or nullopt if the entry is not as it must be.
std::optional<std::pair<uint64_t, uint64_t>> data_range(const Json& tensor) {
  const auto offsets = tensor.is_object() ? tensor.find("data_offsets") : tensor.end();
  if (offsets == tensor.end() || !offsets->is_array() || offsets->size() != 2) return std::nullopt;
  if (!(*offsets)[0].is_number_unsigned() || !(*offsets)[1].is_number_unsigned())
    return std::nullopt;
  const uint64_t begin = (*offsets)[0], end = (*offsets)[1];
  if (end < begin) return std::nullopt;
  return std::pair{begin, end};
}

}  // namespace

Result<std::vector<std::string>> read_safetensors_names(const std::string& path) {
  std::error_code code;
  const uint64_t size = fs::file_size(path, code);
  std::ifstream file(path, std::ios::binary);
  if (code || !file) return unavailable(fmt::format("cannot read {}", path));
  uint64_t header_bytes = 0;
  if (size < 8 || !file.read(reinterpret_cast<char*>(&header_bytes), 8))
    return corrupt_data(
        fmt::format("{} is truncated: {} bytes, too short for a safetensors file", path, size));
  if (header_bytes > kMaxHeaderBytes)
    return corrupt_data(fmt::format("{} is not a safetensors file", path));
  if (header_bytes > size - 8)
    return corrupt_data(fmt::format("{} is truncated: {} bytes, its header alone needs {}", path,
                                    size, 8 + header_bytes));
  std::string text(header_bytes, '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(header_bytes)))
    return unavailable(fmt::format("cannot read {}", path));
  LORRY_ASSIGN(const auto header, parse_json(text, path + " (header)"));
  if (!header.is_object()) return corrupt_data(fmt::format("{} is not a safetensors file", path));
  std::vector<std::string> names;
  uint64_t data_bytes = 0;
  for (const auto& [name, tensor] : header.items()) {
    if (name == "__metadata__") continue;
    const auto range = data_range(tensor);
    if (!range)
      return corrupt_data(fmt::format("{}: tensor {} has no valid data_offsets", path, name));
    data_bytes = std::max(data_bytes, range->second);
    names.push_back(name);
  }
  const uint64_t expected = 8 + header_bytes + data_bytes;
  if (size < expected)
    return corrupt_data(
        fmt::format("{} is truncated: {} bytes of {}; fetch it again", path, size, expected));
  if (size > expected)
    return corrupt_data(fmt::format("{} is {} bytes long, its header says {}; fetch it again", path,
                                    size, expected));
  return names;
}

Result<std::vector<ModelFile>> list_model_files(const std::string& directory) {
  LORRY_TRY(check_is_model(directory));
  const fs::path dir = directory;
  LORRY_ASSIGN(std::vector<std::string> names, choose_weights(dir));
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(dir, error)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() && is_companion(name)) names.push_back(name);
  }
  if (error) return unavailable(fmt::format("cannot list {}: {}", directory, error.message()));
  if (std::count(names.begin(), names.end(), "tokenizer.json") == 0)
    return not_found(fmt::format(
        "{} has no tokenizer.json; save the tokenizer with a fast tokenizer of transformers first",
        directory));
  std::sort(names.begin(), names.end());
  std::vector<ModelFile> files;
  for (const auto& name : names) {
    const auto bytes = fs::file_size(dir / name, error);
    if (error)
      return unavailable(fmt::format("cannot read {}: {}", (dir / name).string(), error.message()));
    files.push_back({name, (dir / name).string(), static_cast<int64_t>(bytes)});
  }
  return files;
}

}  // namespace lorry::pipeline

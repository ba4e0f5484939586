#include "sources/model_files.h"

#include <arrow/io/interfaces.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/json.h"
#include "store/arrow_error.h"

namespace lorry::sources {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as the safetensors library limits it
constexpr int64_t kFirstRead = 256 << 10;          // most headers whole, in one request
constexpr char kIndex[] = "model.safetensors.index.json";

static_assert(std::endian::native == std::endian::little, "safetensors headers are little-endian");

using Names = std::vector<std::string>;

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
Result<std::map<std::string, Names>> read_index(const ModelSource& source) {
  const ModelFile& index_file = *source.find(kIndex);
  LORRY_ASSIGN(const auto text, read_whole(index_file));
  LORRY_ASSIGN(const auto index, parse_json(text, index_file.path));
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (map == index.end() || !map->is_object() || map->empty())
    return corrupt_data(fmt::format("{} has no weight_map", index_file.path));
  std::map<std::string, Names> tensors;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || file.get<std::string>().find('/') != std::string::npos)
      return corrupt_data(fmt::format("{}: {} has no file name", index_file.path, tensor));
    tensors[file.get<std::string>()].push_back(tensor);
  }
  return tensors;
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
      return unsupported(
          fmt::format("{}: weights in {} are not supported; lorry reads model.safetensors (of a "
                      "Hub model there may be a revision or a copy that has it)",
                      source.name, name));
  }
  return not_found(
      fmt::format("{} has no weights: no model.safetensors and no {}", source.name, kIndex));
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

/// The names of the tensors; checks the file's length against the header.
Result<std::set<std::string>> check_header(const ModelFile& file, std::string_view text) {
  const std::string& path = file.path;
  LORRY_ASSIGN(const auto header, parse_json(text.substr(8), path + " (header)"));
  if (!header.is_object()) return corrupt_data(fmt::format("{} is not a safetensors file", path));
  std::set<std::string> names;
  uint64_t data_bytes = 0;
  for (const auto& [name, tensor] : header.items()) {
    if (name == "__metadata__") continue;
    const auto range = data_range(tensor);
    if (!range)
      return corrupt_data(fmt::format("{}: tensor {} has no valid data_offsets", path, name));
    data_bytes = std::max(data_bytes, range->second);
    names.insert(name);
  }
  const uint64_t size = uint64_t(file.bytes), expected = text.size() + data_bytes;
  if (size < expected)
    return corrupt_data(
        fmt::format("{} is truncated: {} bytes of {}; fetch it again", path, size, expected));
  if (size > expected)
    return corrupt_data(fmt::format("{} is {} bytes long, its header says {}; fetch it again", path,
                                    size, expected));
  return names;
}

}  // namespace

Result<std::string> read_safetensors_header(const ModelFile& file) {
  const std::string& path = file.path;
  const uint64_t size = uint64_t(file.bytes);
  if (size < 8)
    return corrupt_data(
        fmt::format("{} is truncated: {} bytes, too short for a safetensors file", path, size));
  LORRY_ASSIGN(const auto opened, file.open());
  std::string text(size_t(std::min(file.bytes, kFirstRead)), '\0');
  const auto read = [&](int64_t offset, int64_t bytes) -> Result<> {
    LORRY_ASSIGN(const int64_t got,
                 store::from_arrow(opened->ReadAt(offset, bytes, text.data() + offset), path));
    if (got != bytes) return corrupt_data(fmt::format("{} is shorter than it was", path));
    return {};
  };
  LORRY_TRY(read(0, int64_t(text.size())));
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, text.data(), 8);
  if (header_bytes > kMaxHeaderBytes)
    return corrupt_data(fmt::format("{} is not a safetensors file", path));
  if (header_bytes > size - 8)
    return corrupt_data(fmt::format("{} is truncated: {} bytes, its header alone needs {}", path,
                                    size, 8 + header_bytes));
  const auto have = int64_t(text.size()), want = int64_t(8 + header_bytes);
  text.resize(size_t(want));
  if (want > have) LORRY_TRY(read(have, want - have));
  return text;
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
  std::map<std::string, Names> index;
  const auto has_index = [](const ModelFile& file) { return file.name == kIndex; };
  if (std::any_of(files.begin(), files.end(), has_index)) {
    LORRY_ASSIGN(index, read_index(source));
  }
  for (const auto& file : files) {
    if (!file.name.ends_with(".safetensors")) continue;
    LORRY_ASSIGN(const auto text, read_safetensors_header(file));
    LORRY_ASSIGN(const auto have, check_header(file, text));
    for (const auto& name : index[file.name])
      if (!have.contains(name))
        return corrupt_data(
            fmt::format("{} has no tensor {}, which {} says it holds", file.path, name, kIndex));
  }
  return {};
}

}  // namespace lorry::sources

#include "hub/safetensors_header.h"

#include <arrow/io/interfaces.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "store/arrow_error.h"

namespace lorry::hub {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as the safetensors library limits it
constexpr int64_t kFirstRead = 256 << 10;          // most headers whole, in one request

static_assert(std::endian::native == std::endian::little, "safetensors headers are little-endian");

/// Bytes that a tensor of this shape takes; nullopt if that overflows.
std::optional<uint64_t> byte_size(const std::vector<int64_t>& shape, int64_t element) {
  auto bytes = static_cast<uint64_t>(element);
  for (const int64_t n : shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(n), &bytes)) return std::nullopt;
  }
  return bytes;
}

bool is_natural(const Json& x) {
  return x.is_number_unsigned() && x.get<uint64_t>() <= uint64_t{1} << 60;
}

/// The two numbers of data_offsets, which count from the end of the header.
std::optional<std::pair<uint64_t, uint64_t>> data_range(const Json& tensor) {
  const auto offsets = tensor.find("data_offsets");
  if (offsets == tensor.end() || !offsets->is_array() || offsets->size() != 2) return std::nullopt;
  if (!is_natural((*offsets)[0]) || !is_natural((*offsets)[1])) return std::nullopt;
  const uint64_t begin = (*offsets)[0], end = (*offsets)[1];
  if (end < begin) return std::nullopt;
  return std::pair{begin, end};
}

Result<TensorInfo> parse_tensor(const std::string& where, const Json& json, uint64_t data) {
  const auto bad = [&](std::string_view what) {
    return corrupt_data(fmt::format("{} {}", where, what));
  };
  if (!json.is_object()) return bad("is not an object in the header");
  TensorInfo tensor;
  const auto dtype = json.find("dtype");
  if (dtype == json.end() || !dtype->is_string()) return bad("has no valid dtype");
  tensor.dtype = dtype->get<std::string>();
  const auto shape = json.find("shape");
  if (shape == json.end() || !shape->is_array()) return bad("has no valid shape");
  for (const Json& n : *shape) {
    if (!is_natural(n)) return bad("has no valid shape");
    tensor.shape.push_back(n.get<int64_t>());
  }
  const auto range = data_range(json);
  if (!range) return bad("has no valid data_offsets");
  tensor.begin = data + range->first;
  tensor.end = data + range->second;
  if (const auto element = element_bytes(tensor.dtype)) {
    if (byte_size(tensor.shape, *element) != range->second - range->first)
      return bad("has a shape that its data_offsets disagree with");
  }
  return tensor;
}

Result<std::string> read_header_bytes(arrow::io::RandomAccessFile& file, const std::string& path,
                                      uint64_t size) {
  if (size < 8)
    return corrupt_data(
        fmt::format("{} is truncated: {} bytes, too short for a safetensors file", path, size));
  std::string text(size_t(std::min<uint64_t>(size, kFirstRead)), '\0');
  const auto read = [&](int64_t offset, int64_t bytes) -> Result<> {
    LORRY_ASSIGN(const int64_t got,
                 store::from_arrow(file.ReadAt(offset, bytes, text.data() + offset), path));
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

}  // namespace

std::optional<int64_t> element_bytes(std::string_view dtype) {
  static const std::map<std::string_view, int64_t> kBytes = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"F8_E8M0", 1},
      {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},     {"U32", 4},
      {"F32", 4},  {"I64", 8}, {"U64", 8}, {"F64", 8},     {"C64", 8},
  };
  const auto found = kBytes.find(dtype);
  return found == kBytes.end() ? std::nullopt : std::optional(found->second);
}

Result<SafetensorsHeader> read_safetensors_header(arrow::io::RandomAccessFile& file,
                                                  const std::string& path, int64_t file_bytes) {
  const auto size = static_cast<uint64_t>(file_bytes);
  SafetensorsHeader header;
  LORRY_ASSIGN(header.bytes, read_header_bytes(file, path, size));
  LORRY_ASSIGN(const auto json,
               parse_json(std::string_view(header.bytes).substr(8), path + " (header)"));
  if (!json.is_object()) return corrupt_data(fmt::format("{} is not a safetensors file", path));
  uint64_t expected = header.bytes.size();
  for (const auto& [name, value] : json.items()) {
    if (name == "__metadata__") continue;
    LORRY_ASSIGN(TensorInfo tensor, parse_tensor(fmt::format("{}: tensor {}", path, name), value,
                                                 header.bytes.size()));
    expected = std::max(expected, tensor.end);
    header.tensors.insert_or_assign(name, std::move(tensor));
  }
  if (size < expected)
    return corrupt_data(
        fmt::format("{} is truncated: {} bytes of {}; fetch it again", path, size, expected));
  if (size > expected)
    return corrupt_data(fmt::format("{} is {} bytes long, its header says {}; fetch it again", path,
                                    size, expected));
  return header;
}

Result<WeightIndex> parse_weight_index(std::string_view text, const std::string& path) {
  LORRY_ASSIGN(const auto json, parse_json(text, path));
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (map == json.end() || !map->is_object() || map->empty())
    return corrupt_data(fmt::format("{} has no weight_map", path));
  WeightIndex index;
  for (const auto& [tensor, value] : map->items()) {
    const std::string file = value.is_string() ? value.get<std::string>() : "";
    if (file.empty() || file.find("..") != std::string::npos || file.starts_with('/'))
      return corrupt_data(fmt::format("{}: {} has no file name", path, tensor));
    index[file].push_back(tensor);
  }
  return index;
}

}  // namespace lorry::hub

// What a safetensors file holds, from its header: names, dtypes, shapes and where the bytes are.
// Format: https://github.com/huggingface/safetensors (8 bytes of header length, JSON, data).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace arrow::io {
class RandomAccessFile;
}  // namespace arrow::io

namespace lorry::hub {

struct TensorInfo {
  std::string dtype;  ///< as the file says it: "F32", "BF16", "F8_E4M3", ...
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  ///< bytes [begin, end) of the file
};

struct SafetensorsHeader {
  std::map<std::string, TensorInfo> tensors;  ///< by name
  std::string bytes;                          ///< the length and the JSON, as they are in the file
};

/// Reads the header of a file of `size` bytes; most headers take one read. `path` is for messages.
/// Fails with corrupt data, naming file and bytes, if the file is not as long as its header says,
/// an entry is malformed, or a tensor's shape and bytes disagree.
Result<SafetensorsHeader> read_safetensors_header(arrow::io::RandomAccessFile& file,
                                                  const std::string& path, int64_t size);

/// Bytes of one element; nullopt for dtypes that are not known here or are smaller than a byte.
std::optional<int64_t> element_bytes(std::string_view dtype);

/// What model.safetensors.index.json says: the tensors of each file.
using WeightIndex = std::map<std::string, std::vector<std::string>>;
/// `path` is for messages. Fails with corrupt data if there is no weight_map, or if one of its
/// files is not below the index's own directory.
Result<WeightIndex> parse_weight_index(std::string_view text, const std::string& path);

}  // namespace lorry::hub

// Matrices as other programs quantised them: the checkpoints of GPTQ, AWQ and compressed-tensors.
// docs/serving.md has their layouts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "model/safetensors.h"
#include "ops/weight.h"

namespace lorry::model {

enum class PackedKind {
  kGptq,        ///< qweight of input rows, qzeros, scales, g_idx: 4 bits
  kAwq,         ///< qweight of output columns, qzeros, scales: 4 bits
  kPackedInts,  ///< compressed-tensors' pack-quantized: weight_packed, weight_scale; 4 or 8 bits
  kScaledRows,  ///< its int-quantized and float-quantized: int8 or e4m3 numbers, weight_scale
};

/// How a checkpoint holds the matrix that it would call `name` ("...q_proj.weight"), by the tensors
/// that are there; nullopt: not in one of these ways.
std::optional<PackedKind> packed_kind(const SafetensorsReader& reader, const std::string& name);

/// The tensor of the matrix's codes.
std::string codes_name(PackedKind kind, const std::string& name);

/// That the tensors have the shapes of an (out, in) matrix in groups that lorry reads: of a
/// multiple of 128 in 4 bits, of whole rows in 8.
Result<> check_packed(const SafetensorsReader& reader, PackedKind kind, const std::string& name,
                      int64_t out, int64_t in);

/// The matrix, without bias, as kInt4Groups, kInt8Rows or kFp8Rows. Of one that `check_packed`
/// accepts. Unsupported where GPTQ's groups are not of neighbours (desc_act).
Result<ops::Weight> read_packed(const SafetensorsReader& reader, PackedKind kind,
                                const std::string& name, int64_t out, int64_t in);

}  // namespace lorry::model

// Loops over quantised weights on a CPU; weight.h and nf4.h have the formats.
#pragma once

#include <cstdint>

namespace lorry::ops::cpu {

/// NF4 codes of `blocks` blocks of 64 numbers: codes (32 bytes a block), and the largest magnitude
/// of each block, NaN or infinity where it holds one.
void encode_nf4(const float* numbers, int64_t blocks, uint8_t* codes, float* largest);

/// The reverse: codes times scales, rounded once to T: float, Bf16 (cpu_math.h) or at::Half.
template <typename T>
void decode_nf4(const uint8_t* codes, const float* scales, int64_t blocks, T* out);

/// (rows, width) e4m3 numbers, none of them NaN, times a scale a row, rounded once to T.
template <typename T>
void decode_fp8(const uint8_t* codes, const float* scales, int64_t rows, int64_t width, T* out);

/// The 16 numbers of NF4, ascending.
extern const float kNf4Numbers[16];

}  // namespace lorry::ops::cpu

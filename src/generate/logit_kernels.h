// Vectorised passes over one row of logits on the CPU: what sampling does with all of a vocabulary.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/cpu_math.h"

namespace lorry::generate {

/// The logits of one sequence's next token: float32, or bfloat16 as bits. A view, valid while the
/// memory is.
struct LogitRow {
  const float* floats = nullptr;  ///< null: `bf16` holds them
  const ops::cpu::Bf16* bf16 = nullptr;
  int64_t size = 0;  ///< the vocabulary

  float operator[](int64_t id) const {
    return floats != nullptr ? floats[id] : ops::cpu::widen(bf16[id]);
  }
};

struct Candidate {
  float logit;
  int32_t id;
  /// The order of sampling: the larger logit first, the lower id among equals.
  bool operator<(const Candidate& other) const {
    return logit != other.logit ? logit > other.logit : id < other.id;
  }
};

/// Logits of one maximum; a multiple of the widest vector.
inline constexpr int64_t kMaximaBlock = 64;
/// Logits of one partial sum of exponentials.
inline constexpr int64_t kSumBlock = 512;

/// maxima[b]: the largest of the logits [64 b, 64 (b + 1)). A NaN never counts; -inf where there is
/// nothing else. Returns the largest of all.
float block_maxima(const LogitRow& row, std::vector<float>& maxima);

/// The first id whose logit is `top`, which is the largest of `maxima`.
int32_t first_at(const LogitRow& row, std::span<const float> maxima, float top);

/// Appends every logit >= threshold, by id. Reads only the blocks whose maximum reaches it.
void gather_above(const LogitRow& row, std::span<const float> maxima, float threshold,
                  std::vector<Candidate>& out);

/// sums[b] = sum of exp((logit - top) / temperature) over the logits [512 b, 512 (b + 1)), in
/// float64, relative error about 1e-15; a NaN counts 0. Returns the sum of all.
double exp_sums(const LogitRow& row, float top, double temperature, std::vector<double>& sums);

/// Copies the row as float32: NaN becomes -inf, +inf the largest float.
void copy_clean(const LogitRow& row, std::vector<float>& out);

}  // namespace lorry::generate

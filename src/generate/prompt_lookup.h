// Speculative decoding without a second model: what followed the last tokens of a sequence where
// they stood before is a draft of what follows them now. One engine step verifies it. Source:
// Saxena 2023, "Prompt Lookup Decoding"; the options are vLLM's for the method "ngram".
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lorry::generate {

struct SpeculationOptions {
  int64_t num_speculative_tokens = 0;  ///< of one draft, at most; 0: no speculation
  int64_t prompt_lookup_max = 5;       ///< how many of the last tokens are looked for, at most
  int64_t prompt_lookup_min = 2;       ///< and at least
};

/// The `num_speculative_tokens` tokens that followed the last tokens of `tokens` where most of them
/// stood before, the latest such place; empty if there is none. What would be read beyond the end
/// goes on with the draft itself. Reads `tokens` once.
std::vector<int32_t> look_up(std::span<const int32_t> tokens, const SpeculationOptions& options);

/// How many drafted tokens are worth a row of an engine step. Learns from the steps what a row
/// costs. Not thread-safe.
class DraftPolicy {
 public:
  /// One sequence that decodes.
  struct Candidate {
    double acceptance = 0;  ///< share of its drafted tokens that came true lately
    int64_t drafts = 0;     ///< that it has
  };

  /// A step of `rows` rows, one for each sequence and one for each drafted token, took this long.
  void observe(int64_t rows, double seconds);
  /// How many drafts of each to verify, so that as many tokens as possible are expected in a
  /// second. At most `most` in all.
  std::vector<int64_t> choose(std::span<const Candidate> candidates, int64_t most) const;

 private:
  /// What a row adds to the time of a step, in units of the time that does not depend on rows.
  double row_cost_ = kFirstRowCost;
  static constexpr double kFirstRowCost = 0.1;
  // Sums over the steps so far, of older ones with less weight, for a straight line through them.
  double weight_ = 0, rows_ = 0, seconds_ = 0, rows_rows_ = 0, rows_seconds_ = 0;
};

}  // namespace lorry::generate

// What pretokenizing counts of the rows that it writes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "chat/chat.h"
#include "stages/length_limit.h"

namespace lorry::stages {

/// How many rows there are of each length. Lengths from 64 on are counted in steps of at most a
/// 32nd, so it stays small whatever it counts, and sums are the same in any order.
class LengthHistogram {
 public:
  void count(int64_t length, int64_t rows = 1);
  void add(const LengthHistogram& other);

  int64_t rows() const;
  /// The length that a part `q` of the rows does not exceed, at most a 32nd above the true one.
  int64_t quantile(double q) const;
  /// Rows by the largest length of each step.
  const std::map<int64_t, int64_t>& steps() const { return steps_; }

  /// {largest length of the step: rows}, and back.
  Json to_json() const;
  static LengthHistogram from_json(const Json& json);

 private:
  std::map<int64_t, int64_t> steps_;
};

/// How many rows are of one kind, and one of them, for people.
struct RowsLike {
  int64_t rows = 0;
  std::string first;  ///< place, row and what is meant
};

struct TokenCounts {
  /// Lengths for which info.json says how many rows are longer: what a --max-length would cut.
  static constexpr int64_t kLengths[] = {512, 1024, 2048, 4096, 8192, 16384, 32768};

  int64_t rows = 0, tokens = 0;
  int64_t target_tokens = 0;           ///< whose mask is 1
  int64_t rows_without_target = 0;     ///< written, with nothing to train on
  int64_t rows_without_end = 0;        ///< that train on something, but on no end token
  int64_t rows_with_new_call_ids = 0;  ///< whose tool calls' ids did not suit the template
  int64_t longest = 0;
  int64_t longer[std::size(kLengths)] = {};
  LengthHistogram lengths;
  ExcessCounts excess;
  /// Rows with something that the template does not show, by what it is (chat::name_of).
  std::map<std::string, RowsLike> losses;

  /// True if the row has something to train on.
  bool count(const chat::EncodedExample& example);
  void add(const TokenCounts& other);
  int64_t longer_than_4096() const { return longer[3]; }
  /// Every row is in `lengths`; info.json of earlier versions had none.
  bool has_lengths() const { return rows > 0 && lengths.rows() == rows; }

  /// As info.json has them, and back; what is missing is 0.
  Json to_json() const;
  static TokenCounts from_json(const Json& json);
};

/// For people, before the hours of training: how many rows a --max-length of training will cut, and
/// what else could be done. Empty if none.
std::string describe_cut(const TokenCounts& counts, int64_t max_length);

/// For people: that rows train on no end token, and what to do. Empty if all do.
std::string describe_no_end(const TokenCounts& counts);

/// For people: what the template does not show, a sentence a kind.
std::vector<std::string> describe_losses(const TokenCounts& counts);

/// A few lines for people: quantiles, and a bar for each power of two. Empty without lengths.
std::string describe_lengths(const TokenCounts& counts);

}  // namespace lorry::stages

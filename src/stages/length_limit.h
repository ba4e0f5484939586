// What becomes of an example that is longer than --max-length.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "chat/chat.h"

namespace lorry::stages {

/// What to do with an example that is too long (axolotl: `excess_length_strategy`).
enum class Excess {
  kTruncate,  ///< cut it at the end, as training would
  kDrop,      ///< leave it out
  kSplit,     ///< into pieces of at most so many tokens, in order
};

struct LengthLimit {
  int64_t max_length = 0;  ///< tokens; 0: examples stay whole
  Excess excess = Excess::kTruncate;

  bool is_set() const { return max_length > 0; }
};

/// "truncate", "drop", "split", and back; other names are truncate.
const char* name_of(Excess excess);
Excess excess_from(const std::string& name);

/// How many examples were too long, and what became of them.
struct ExcessCounts {
  int64_t rows = 0;             ///< examples longer than the limit
  int64_t tokens_left_out = 0;  ///< of these
  int64_t pieces = 0;           ///< written, of those that were split
  int64_t pieces_left_out = 0;  ///< with nothing to train on

  void add(const ExcessCounts& other);
  Json to_json() const;
  static ExcessCounts from_json(const Json& json);
};

/// The example as it is written: itself if it is short enough, else none, one or many. Pieces with
/// nothing to train on are left out, but for the first if none has anything. A piece's text is cut
/// between its tokens if the example has offsets, and not in the middle of a character; without
/// offsets it stays empty.
std::vector<chat::EncodedExample> fit(chat::EncodedExample example, const LengthLimit& limit,
                                      ExcessCounts& counts);

/// Whether training finds something to learn: the first token is never predicted.
bool teaches(const chat::EncodedExample& example);

}  // namespace lorry::stages

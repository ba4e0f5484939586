// A pattern as a deterministic automaton, for the patterns that split text: one table look-up a
// character instead of backtracking. Leftmost-first as the backtracking machine (the ordered state
// sets of RE2, Cox 2010). Private to regex.cc.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "tokenizer/regex.h"
#include "tokenizer/regex_ast.h"
#include "tokenizer/split_automaton.h"

namespace lorry::tokenizer {

/// Immutable, hence thread-safe.
class RegexDfa {
 public:
  static constexpr size_t kNoMatch = SIZE_MAX;

  /// nullopt where a pattern needs what an automaton has not (look-behind, anchors, atomic groups,
  /// look-ahead of more than a character, an empty match) or would be large.
  static std::optional<RegexDfa> build(const regex::Node& root);

  /// Where the match that begins at `begin` ends, or kNoMatch. `text` is valid UTF-8.
  size_t match(std::string_view text, size_t begin) const;

  /// As Regex::split.
  void split(std::string_view text, std::span<const Regex::Match> pieces,
             std::vector<Regex::Match>& out) const;
  /// As Regex::split_after.
  bool split_after(const std::vector<Regex::Runs>& runs);

 private:
  friend class SplitAutomaton;

  /// ASCII bytes that lead from a state to itself, where they are one or two ranges (letters, white
  /// space, digits): `first` to `first + span`, each 16 times, so that runs of them are walked 16
  /// bytes at a time.
  struct alignas(16) Loop {
    std::array<std::array<uint8_t, 16>, 2> first{}, span{};
    bool is_match = false;  ///< whether a match may end before each of them
  };
  /// Of an entry: a match may end before this character; the next row has a loop; the next row only
  /// says that a match ends there, whatever follows.
  static constexpr uint32_t kMatchFlag = 1, kLoopFlag = 2, kFinalFlag = 4, kRowShift = 3;

  uint32_t class_of(uint32_t code_point) const {
    return blocks_[index_[code_point >> 8]][code_point & 0xFF];
  }
  std::optional<Loop> loop_of(uint32_t row) const;
  bool is_final(uint32_t row) const;
  void set_flags();
  size_t match_from(std::string_view text, size_t begin) const;

  std::array<uint8_t, 128> ascii_{};  // class by byte
  std::vector<uint16_t> index_;       // block by code point >> 8
  std::vector<std::array<uint8_t, 256>> blocks_;
  uint32_t end_class_ = 0;      // behind the last character
  uint32_t shift_ = 0;          // of a state to its row in next_, which has an entry for each class
  uint32_t start_ = 0;          // row; row 0 is the dead state's
  std::vector<uint32_t> next_;  // [row + class] = next row << kRowShift | flags
  std::vector<Loop> loops_;     // by state
  std::vector<bool> may_end_;   // by state: a match may end here, whatever follows
  std::optional<SplitAutomaton> splitter_;
};

}  // namespace lorry::tokenizer

// An automaton that never stops: it runs over a whole text once and marks where the matches of a
// pattern begin, without a branch that depends on the text. Made of a RegexDfa, which finds one
// match. Private to regex_dfa.cc.
//
// A state is one of the DFA's and the characters behind the last place where the match may have
// ended. When the DFA dies, the match did end there, and the next one begins: what the DFA makes of
// those few characters is known when the automaton is built. So a transition says the next state
// and which of the last characters began something.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "tokenizer/regex.h"

namespace lorry::tokenizer {

class RegexDfa;

/// Immutable, hence thread-safe.
class SplitAutomaton {
 public:
  /// nullopt where this is not possible: a character may begin no match though it leads into one.
  static std::optional<SplitAutomaton> build(const RegexDfa& dfa);

  /// As RegexDfa::split. `dfa` is what this was built of.
  void split(const RegexDfa& dfa, std::string_view text, std::span<const Regex::Match> pieces,
             std::vector<Regex::Match>& out) const;

 private:
  class Builder;
  class Run;

  /// Of a transition: something begins at this character, at the one before, at the one before
  /// that.
  static constexpr uint8_t kHere = 1, kOneBack = 2, kTwoBack = 4;
  static constexpr size_t kMaxBack = 2;
  /// States: nothing begun; and the one for what has more characters behind its last end than that.
  static constexpr uint16_t kFresh = 0, kLost = 1;

  struct Cell {
    uint16_t next = kFresh;
    uint8_t begins = 0;
  };
  const Cell& cell(size_t state, size_t c) const { return cells_[state * n_classes_ + c]; }
  void make_rows(const RegexDfa& dfa);
  void make_skipped(const RegexDfa& dfa);

  size_t n_classes_ = 0;
  std::vector<Cell> cells_;  // by state and class

  // For runs of ASCII, where there are at most 32 states: a transition is a look-up of the state
  // among the bytes of a register, by the byte of text (Hyperscan's "sheng"). A state is its
  // number's low four bits, its fifth at bit 7, and what begins between them, which the look-up
  // ignores.
  struct alignas(32) Row {
    std::array<uint8_t, 16> low{}, high{};
  };
  std::vector<Row> rows_;  // by byte; empty where there are too many states

  // By state: the ASCII bytes that lead back to it and begin nothing, if they are nearly all (text
  // outside of what a pattern looks for), as a bit for a high nibble at each low one. Empty where
  // no state has any.
  std::vector<std::array<uint8_t, 16>> skipped_;
};

}  // namespace lorry::tokenizer

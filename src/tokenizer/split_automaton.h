// An automaton that never stops: it runs over a whole text once and marks where the matches of a
// pattern begin, without a branch that depends on the text. Made of a RegexDfa, which finds one
// match. Private to regex_dfa.cc.
//
// A state is one of the DFA's and the characters behind the last place where the match may have
// ended. When the DFA dies, the match did end there, and the next one begins: what the DFA makes of
// those few characters is known when the automaton is built. So a transition says the next state
// and which of the last characters began something.
//
// Texts may be cut before that at runs of characters of other sets, such as \p{N}{1,3} (DeepSeek's
// tokenizers have two such steps). Where such a run begins or ends is known at each character: it
// is in one of a few zones, and where the zone changes or a run is full, the DFA meets the end of
// its text and begins again.
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
  /// nullopt where this is not possible: a character may begin no match though it leads into one,
  /// or the runs' sets have characters in common.
  static std::optional<SplitAutomaton> build(const RegexDfa& dfa,
                                             const std::vector<Regex::Runs>& runs);

  /// Whether ASCII is walked 16 bytes at a time.
  bool is_fast() const { return !rows_.empty(); }

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
  size_t end_class() const { return n_classes_ - 1; }
  uint32_t class_of(uint32_t code_point) const {
    return blocks_[index_[code_point >> 8]][code_point & 0xFF];
  }
  bool make_classes(const RegexDfa& dfa, const std::vector<Regex::Runs>& runs);
  void make_rows();
  void make_skipped();

  // A class is the characters of one class of the DFA and of one zone; the last is the text's end.
  size_t n_classes_ = 0;
  std::vector<uint8_t> dfa_class_, zone_;  // by class
  std::vector<uint32_t> most_;        // by zone: characters of a run; zone 0 is outside of runs
  std::array<uint8_t, 128> ascii_{};  // class by byte
  std::vector<uint16_t> index_;       // block by code point >> 8
  std::vector<std::array<uint8_t, 256>> blocks_;

  std::vector<Cell> cells_;       // by state and class
  std::vector<uint16_t> inside_;  // by zone: the state behind a match that ends within a run

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

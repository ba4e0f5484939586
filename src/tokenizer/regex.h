// The regular expressions of tokenizer.json, with Oniguruma's meaning (its Ruby syntax), since that
// is what the peer `tokenizers` runs. Patterns that split text become an automaton (regex_dfa.h);
// what that cannot express is left to a backtracking matcher.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tokenizer/unicode.h"

namespace lorry::tokenizer {

/// A compiled pattern. Immutable but for `split_after`, hence thread-safe after it.
class Regex {
 public:
  struct Match {
    size_t begin, end;  ///< bytes of the text
    bool operator==(const Match&) const = default;
  };

  /// A construct that is not supported (back references, \K, \X, ...) is named in the error.
  static Result<Regex> compile(std::string_view pattern);
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  /// The leftmost match at or behind byte `from` of valid UTF-8. The work for one start position is
  /// bounded; where the bound is met there is no match.
  bool find(std::string_view text, size_t from, Match& match) const;

  /// Appends all matches in each of the pieces, which come in order and are texts of their own, and
  /// what lies between the matches; none of them empty.
  void split(std::string_view text, std::span<const Match> pieces, std::vector<Match>& parts) const;

  /// Whether the pattern is matched without backtracking.
  bool is_automaton() const;

  /// What a pattern like [0-9]{1,3} matches: runs of a set's characters, of at most `most`.
  struct Runs {
    CodePointSet set;
    uint32_t most;
  };
  static constexpr uint32_t kUnbounded = UINT32_MAX;
  /// Nullopt if the pattern is another.
  std::optional<Runs> runs() const;
  /// From now on `split` cuts each piece at these runs first, one after the other, and at the
  /// pattern's matches in what that leaves, all in one pass over the text. False, and nothing has
  /// changed, where no automaton does that.
  bool split_after(const std::vector<Runs>& runs);

  /// Goes through all matches as `tokenizers` does: an empty match right behind the last match does
  /// not count.
  class Iterator {
   public:
    Iterator(const Regex& regex, std::string_view text) : regex_(regex), text_(text) {}
    bool next(Match& match);

   private:
    const Regex& regex_;
    std::string_view text_;
    size_t from_ = 0;
    size_t last_end_ = SIZE_MAX;
  };

 private:
  struct Program;
  friend class RegexCompiler;
  friend class RegexMachine;
  explicit Regex(std::unique_ptr<Program> program);
  std::unique_ptr<Program> program_;
};

}  // namespace lorry::tokenizer

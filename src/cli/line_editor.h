// Typing a line in the terminal: cursor keys, history, and the control keys that shells know.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace lorry::cli {

/// The line as it is typed, key by key; knows nothing of a terminal. Text is UTF-8.
class LineBuffer {
 public:
  /// What a byte did: changed the line, ended it, or asked to stop (Ctrl-C, or Ctrl-D when empty).
  enum class Key { kEdit, kEnter, kInterrupt, kEnd };

  /// `history`: earlier lines, the oldest first, for the cursor keys up and down.
  explicit LineBuffer(std::vector<std::string> history = {});

  /// Takes one byte as a terminal sends it; escape sequences and characters may come in pieces.
  Key feed(unsigned char byte);

  const std::string& text() const { return text_; }

  /// The part around the cursor that fits, and the column of the cursor in it.
  struct View {
    std::string text;
    size_t column = 0;
  };
  View view(size_t columns) const;

 private:
  void control(unsigned char byte);
  void escape_sequence();
  void insert(char byte);
  void erase(size_t begin, size_t end);
  void recall(size_t entry);
  size_t before(size_t at) const;
  size_t after(size_t at) const;

  std::string text_, escape_;
  size_t cursor_ = 0;               // in bytes, on the first byte of a character
  std::vector<std::string> lines_;  // history and, last, the line that was begun
  size_t line_ = 0;                 // of lines_, which text_ came from
};

/// Reads a line from the terminal at stdin, with `prompt` on stderr. nullopt at its end (Ctrl-D).
/// Ctrl-C on an empty line, and a signal, are errors of kind kCancelled.
Result<std::optional<std::string>> read_line(const std::string& prompt,
                                             const std::vector<std::string>& history);

}  // namespace lorry::cli

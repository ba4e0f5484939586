// What a template writes around the words of an assistant's message, and where in it the turn
// begins and ends.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "chat/regions.h"

namespace lorry::chat {

/// The same text between the words is divided in the same way wherever it stands, so a template is
/// asked once for each.
class Seams {
 public:
  /// Where the turn begins in the text before the words, and where it ends in the text behind them:
  /// places in SeamText.
  struct Seam {
    size_t begin = 0, end = 0;
  };
  /// Null: not known. An empty one: the template shows no turn there.
  const std::optional<Seam>* find(const std::string& key) const {
    const auto it = seams_.find(key);
    return it == seams_.end() ? nullptr : &it->second;
  }
  void add(std::string key, std::optional<Seam> seam) {
    seams_.emplace(std::move(key), std::move(seam));
  }

  Gaps gaps;  ///< of the conversations whose seams these are

 private:
  std::unordered_map<std::string, std::optional<Seam>> seams_;
};

/// A text between words, with numbers and names (ids of calls) that differ from turn to turn as one
/// character each. Places in the one text are places in the other.
class SeamText {
 public:
  SeamText() = default;
  SeamText(std::string_view text, const std::vector<std::string_view>& names);

  const std::string& text() const { return text_; }
  /// Nullopt within a number or a name.
  std::optional<size_t> place(size_t at) const;
  size_t original(size_t place) const;

 private:
  struct Cut {
    size_t from, to, place;  ///< [from, to) of the original is the character at `place`
  };
  std::string text_;
  std::vector<Cut> cuts_;
};

}  // namespace lorry::chat

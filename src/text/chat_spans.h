// Where in a rendered conversation the assistant speaks.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/json.h"
#include "text/chat_regions.h"
#include "text/tokenizer.h"

namespace lorry::text {

/// What a template writes around the words of an assistant's message, and where in it the turn
/// begins and ends. The same text between the words is divided in the same way wherever it stands,
/// so a template is asked once for each.
class Seams {
 public:
  /// Bytes from the end of the words before to where the turn begins, and from the end of its own
  /// words to where it ends.
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

/// One span for each assistant message of `messages` that is shown, in order: from behind its
/// header up to and with its end-of-turn token. `text` is the rendering of all messages, `encoding`
/// its tokens. `known`: seams of the template, looked at before it is asked; what had to be found
/// out is added to `found` if that is not null. The result depends on `known` and the messages
/// alone.
std::vector<Span> assistant_spans(const Json& messages, const std::string& text,
                                  const Encoding& encoding, const Tokenizer& tokenizer,
                                  const SpanRender& render, const Seams& known = {},
                                  Seams* found = nullptr);

}  // namespace lorry::text

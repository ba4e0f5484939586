#include "chat/losses.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/utf8.h"
#include "chat/calls.h"
#include "chat/marks.h"

namespace lorry::chat {
namespace {

constexpr std::string_view kThinkBegin = "<think>";
/// Words of fewer bytes may stand in a text by chance.
constexpr size_t kLongWords = 16;
constexpr size_t kWordsInLoss = 60;

/// Something that a message says.
struct Piece {
  Part part;
  size_t message;
  std::string_view words;  ///< of a call: none
  std::string_view in;     ///< the string that holds the words, from its beginning up to them
  const Json* value;       ///< that string in its message, or the call
  bool shown = false;      ///< as far as the text alone tells
  bool is_call() const { return part == Part::kCall; }
  bool may_be_chance() const { return !is_call() && words.size() < kLongWords; }
};

std::string_view stripped(std::string_view words) {
  while (!words.empty() && is_space(words.front())) words.remove_prefix(1);
  while (!words.empty() && is_space(words.back())) words.remove_suffix(1);
  return words;
}

Part part_of(const Json* role, bool has_calls) {
  if (role == nullptr || !role->is_string()) return Part::kUser;
  const auto& name = role->get_ref<const std::string&>();
  if (name == "user") return Part::kUser;
  if (name == "assistant") return has_calls ? Part::kWordsBesideCall : Part::kAnswer;
  return name == "system" || name == "developer" ? Part::kSystem : Part::kToolResult;
}

bool is_reasoning(std::string_view key) {
  return key == "reasoning_content" || key == "thinking" || key == "reasoning";
}

/// Where the last `</think>` begins; npos if there is none. Faster than rfind where there is none.
size_t last_think_end(std::string_view text) {
  size_t last = text.npos;
  for (size_t at = text.find(kThinkEnd); at != text.npos; at = text.find(kThinkEnd, at + 1))
    last = at;
  return last;
}

class Pieces {
 public:
  explicit Pieces(const Json& messages) {
    all_.reserve(messages.size());
    for (size_t i = 0; i < messages.size(); ++i) add_message(messages[i], i);
  }
  std::vector<Piece> take() { return std::move(all_); }

 private:
  void add_message(const Json& message, size_t i) {
    const Json *role = nullptr, *content = nullptr, *reasoning = nullptr, *calls = nullptr;
    for (const auto& [key, value] : message.get_ref<const Json::object_t&>()) {
      if (key == "role")
        role = &value;
      else if (key == "content")
        content = &value;
      else if (key == "tool_calls")
        calls = value.is_array() && !value.empty() ? &value : nullptr;
      else if (is_reasoning(key) && value.is_string())
        reasoning = &value;
    }
    if (reasoning != nullptr) add(Part::kReasoning, i, *reasoning, 0, std::string_view::npos);
    const Part part = part_of(role, calls != nullptr);
    if (content != nullptr && content->is_string()) add_content(part, i, *content);
    if (content != nullptr && content->is_array()) add_parts(part, i, *content);
    if (calls == nullptr) return;
    for (const Json& call : *calls) {
      if (call.is_object()) all_.push_back({Part::kCall, i, {}, {}, &call});
    }
  }

  /// Thoughts may stand at the beginning of an answer: <think> ... </think>.
  void add_content(Part part, size_t i, const Json& content) {
    const std::string_view text = content.get_ref<const std::string&>();
    const bool is_answer = part == Part::kAnswer || part == Part::kWordsBesideCall;
    const size_t end = is_answer ? last_think_end(text) : text.npos;
    if (end == text.npos) return add(part, i, content, 0, text.npos);
    const size_t begin = text.find(kThinkBegin);
    add(Part::kReasoning, i, content, begin < end ? begin + kThinkBegin.size() : 0, end);
    add(part, i, content, end + kThinkEnd.size(), text.npos);
  }

  void add_parts(Part part, size_t i, const Json& parts) {
    for (const Json& each : parts) {
      if (!each.is_object()) continue;
      const auto text = each.find("text");
      if (text != each.end() && text->is_string()) add(part, i, *text, 0, std::string_view::npos);
    }
  }

  void add(Part part, size_t i, const Json& string, size_t begin, size_t end) {
    const std::string_view text = string.get_ref<const std::string&>();
    const std::string_view in = text.substr(0, end);
    const auto words = stripped(in.substr(begin));
    if (!words.empty()) all_.push_back({part, i, words, in, &string});
  }

  std::vector<Piece> all_;
};

/// Looks for the pieces in the order in which templates write them.
class Search {
 public:
  explicit Search(std::string_view text) : text_(text), rest_(text) {}

  bool finds(const Piece& piece) {
    if (piece.is_call()) {
      const auto rest = after_call(*piece.value, rest_);
      if (rest) rest_ = *rest;
      return rest.has_value();
    }
    // What the system says may stand anywhere: Mistral writes it into the last question.
    if (piece.part == Part::kSystem) return text_.find(piece.words) != text_.npos;
    if (const size_t at = rest_.find(piece.words); at != rest_.npos) {
      rest_.remove_prefix(at + piece.words.size());
      return true;
    }
    return !piece.may_be_chance() && text_.find(piece.words) != text_.npos;
  }

 private:
  const std::string_view text_;
  std::string_view rest_;  ///< after what was found last
};

/// A copy of the messages with a mark in each of some pieces. Pieces point into `messages`.
class MarkedMessages {
 public:
  MarkedMessages(const Json& messages, const std::vector<Piece>& pieces)
      : messages_(messages), pieces_(pieces), marked_(messages) {}

  /// From the last piece to the first, since two may share a string. False: it has nothing to mark.
  bool add(size_t number) {
    const Piece& piece = pieces_[number];
    const Json& from = messages_[piece.message];
    Json& to = marked_[piece.message];
    if (piece.is_call()) {
      const Json& calls = from["tool_calls"];
      Json& call = to["tool_calls"][size_t(piece.value - &calls[0])];
      const Json before = call;
      mark_call(call, mark(number));
      return call != before;
    }
    const auto places = mark_places(piece.in);
    const size_t place = places.empty() ? piece.in.size() : places.back();
    bool found = false;
    // Reasoning stands there under several names.
    for (auto& [key, value] : to.get_ref<Json::object_t&>()) {
      if (value.is_string() && says(from[key], piece)) found |= put(value, place, number);
      if (!value.is_array() || key != "content") continue;
      for (size_t k = 0; k < value.size(); ++k) {
        if (value[k].is_object() && value[k].contains("text") && says(from[key][k]["text"], piece))
          found |= put(value[k]["text"], place, number);
      }
    }
    return found;
  }

  const Json& messages() const { return marked_; }

 private:
  static bool says(const Json& string, const Piece& piece) {
    if (&string == piece.value) return true;
    return piece.part == Part::kReasoning && string == *piece.value;
  }
  static bool put(Json& string, size_t place, size_t number) {
    string.get_ref<std::string&>().insert(place, mark(number));
    return true;
  }

  const Json& messages_;
  const std::vector<Piece>& pieces_;
  Json marked_;
};

/// Which marks a text shows.
std::vector<bool> marks_in(std::string_view text, size_t pieces) {
  std::vector<bool> shown(pieces);
  for (size_t at = text.find('\xF3'); at != text.npos; at = text.find('\xF3', at + 1)) {
    if (is_mark(text, at) && mark_number(text, at) < pieces) shown[mark_number(text, at)] = true;
  }
  return shown;
}

/// Settles, for pieces that were not found and those that may have been found by chance, whether
/// they are shown. If the template cannot render the marks, what was found stays.
void look_closer(const Json& messages, std::vector<Piece>& pieces, const SpanRender& render) {
  if (pieces.size() > kMarks) return;
  MarkedMessages marked(messages, pieces);
  std::vector<size_t> asked;
  for (size_t i = pieces.size(); i-- > 0;) {
    if (pieces[i].shown && !pieces[i].may_be_chance()) continue;
    if (marked.add(i)) asked.push_back(i);
  }
  const auto text = render(marked.messages(), false);
  if (!text.ok()) return;
  const auto shown = marks_in(*text, pieces.size());
  for (const size_t i : asked) pieces[i].shown = shown[i];
}

std::string beginning(std::string_view words) {
  if (words.size() <= kWordsInLoss) return std::string(words);
  return std::string(words.substr(0, utf8_start(words, kWordsInLoss))) + "...";
}

std::string words_of(const Piece& piece) {
  if (!piece.is_call()) return beginning(piece.words);
  Json call = *piece.value;
  const Json name = function_of(call).value("name", Json());
  return name.is_string() ? name.get<std::string>() : std::string();
}

size_t last_answer_of(const Json& messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    if (messages[i].value("role", Json()) == "assistant") return i;
  }
  return 0;
}

void add_tools(const Json& tools, std::string_view text, std::vector<Loss>& losses) {
  if (!tools.is_array()) return;
  for (size_t i = 0; i < tools.size(); ++i) {
    if (!tools[i].is_object()) continue;
    Json tool = tools[i];
    const Json name = function_of(tool).value("name", Json());
    if (!name.is_string() || text.find(name.get_ref<const std::string&>()) != text.npos) continue;
    losses.push_back({Part::kTools, i, name.get<std::string>()});
  }
}

}  // namespace

std::string_view name_of(Part part) {
  switch (part) {
    case Part::kAnswer:
      return "an answer";
    case Part::kCall:
      return "a tool call";
    case Part::kWordsBesideCall:
      return "words beside a tool call";
    case Part::kReasoning:
      return "reasoning";
    case Part::kEarlierReasoning:
      return "reasoning of an earlier answer";
    case Part::kSystem:
      return "a system message";
    case Part::kUser:
      return "a user message";
    case Part::kToolResult:
      return "a tool's result";
    case Part::kTools:
      break;
  }
  return "a tool's definition";
}

std::vector<Loss> find_losses(const Json& messages, const Json& tools, std::string_view text,
                              const SpanRender& render) {
  auto pieces = Pieces(messages).take();
  Search search(text);
  bool all = true;
  for (Piece& piece : pieces) all &= piece.shown = search.finds(piece);
  std::vector<Loss> losses;
  add_tools(tools, text, losses);
  if (all) return losses;
  look_closer(messages, pieces, render);
  const size_t last_answer = last_answer_of(messages);
  for (const Piece& piece : pieces) {
    if (piece.shown) continue;
    const bool earlier = piece.part == Part::kReasoning && piece.message < last_answer;
    losses.push_back(
        {earlier ? Part::kEarlierReasoning : piece.part, piece.message, words_of(piece)});
  }
  return losses;
}

bool loses_calls(const Json& messages, std::string_view text) {
  if (std::none_of(messages.begin(), messages.end(), has_calls)) return false;
  Search search(text);
  for (const Piece& piece : Pieces(messages).take()) {
    if (!search.finds(piece) && piece.is_call()) return true;
  }
  return false;
}

}  // namespace lorry::chat

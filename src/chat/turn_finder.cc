// A turn is found from the messages' structure alone. Most templates are monotone: the conversation
// up to a message renders to a prefix of the whole, and a turn lies between two such prefixes. For
// those that are not (Qwen3 drops earlier thinking, Mistral moves the system prompt to the last
// user message), one message of the whole conversation is changed, and what changes with it in the
// text is that message's.
#include "chat/turn_finder.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace lorry::chat {

namespace {

// Private-use code points: no text begins or ends with these.
constexpr const char* kOther = "\xEE\xA3\xB1lorry\xEE\xA3\xB2";

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

bool blank(std::string_view s) { return std::all_of(s.begin(), s.end(), is_space); }

size_t trimmed_end(std::string_view s, size_t begin, size_t end) {
  while (end > begin && is_space(s[end - 1])) --end;
  return end;
}

std::string_view content_of(const Json& message) {
  const auto it = message.find("content");
  if (it == message.end() || !it->is_string()) return {};
  return it->get_ref<const std::string&>();
}

bool has_calls(const Json& message) {
  const auto it = message.find("tool_calls");
  return it != message.end() && it->is_array() && !it->empty();
}

}  // namespace

TurnFinder::TurnFinder(const Json& messages, const std::string& text,
                       const tokenizer::Encoding& encoding, const tokenizer::Tokenizer& tokenizer,
                       const SpanRender& render)
    : messages_(messages),
      text_(text),
      encoding_(encoding),
      tokenizer_(tokenizer),
      render_(render) {}

std::optional<Span> TurnFinder::find(size_t i, size_t last_end, std::optional<size_t> said) {
  last_end_ = last_end;
  said_ = said.value_or(0);
  auto span = by_prefix(i);
  if (!span) span = by_difference(i);
  return span && span->first >= last_end_ ? span : std::nullopt;
}

Span TurnFinder::mend(size_t i, Span turn, Span words, size_t before, size_t after) {
  last_end_ = before;
  said_ = words.second;
  if (turn.first < before || turn.first > words.first) turn.first = behind_header(i, words.first);
  if (turn.second < words.second || turn.second > after)
    turn.second = end_within(i, turn.first, words, after);
  return turn;
}

// What the conversation up to message i has behind its last words belongs to the turn, as far as
// the whole conversation has it there, too.
size_t TurnFinder::end_within(size_t i, size_t begin, Span words, size_t after) const {
  constexpr size_t kLastWords = 32;
  const auto through = render_(first_messages(i + 1), false);
  if (!through.ok()) return words.second;
  const size_t from = std::max(words.first, words.second - std::min(words.second, kLastWords));
  const std::string_view last = std::string_view(text_).substr(from, words.second - from);
  const size_t at = through->rfind(last);
  if (at == std::string::npos) return words.second;
  const std::string_view theirs = std::string_view(*through).substr(at + last.size());
  const std::string_view ours = std::string_view(text_).substr(words.second, after - words.second);
  const auto differ = std::mismatch(ours.begin(), ours.end(), theirs.begin(), theirs.end()).first;
  return end_of_turn(i, begin, words.second + static_cast<size_t>(differ - ours.begin()));
}

Json TurnFinder::first_messages(size_t n) const {
  Json out = Json::array();
  for (size_t k = 0; k < n; ++k) out.push_back(messages_[k]);
  return out;
}

// The turn of message i if all before it, and all up to it, render to prefixes of the text.
std::optional<Span> TurnFinder::by_prefix(size_t i) {
  if (i == 0) return std::nullopt;  // an empty conversation is nothing that templates expect
  Json prefix = first_messages(i);
  const auto before = render_(prefix, true);
  if (!before.ok() || !text_.starts_with(*before)) return std::nullopt;
  const size_t begin = before->size();
  size_t end = text_.size();
  if (i + 1 < messages_.size()) {
    prefix.push_back(messages_[i]);
    const auto through = render_(prefix, false);
    if (!through.ok() || !text_.starts_with(*through)) return std::nullopt;
    end = through->size();
  }
  if (end < begin || begin < last_end_) return std::nullopt;
  return Span{begin, end_of_turn(i, begin, end)};
}

bool TurnFinder::special(size_t token) const {
  const int32_t id = encoding_.ids[token];
  return tokenizer_.is_special(id) || tokenizer_.eos_id() == id;
}

bool TurnFinder::is_eos(size_t token) const { return tokenizer_.eos_id() == encoding_.ids[token]; }

// The end of the token that ends the turn, of several in a row: EOS, else the first.
size_t TurnFinder::closing(const std::vector<size_t>& run) const {
  for (const size_t t : run) {
    if (is_eos(t)) return encoding_.offsets[t].second;
  }
  return encoding_.offsets[run.front()].second;
}

// First token that begins at or behind a byte.
size_t TurnFinder::token_at(size_t byte) const {
  const auto& offsets = encoding_.offsets;
  const auto it = std::lower_bound(offsets.begin(), offsets.end(), byte,
                                   [](const auto& range, size_t b) { return range.first < b; });
  return static_cast<size_t>(it - offsets.begin());
}

// The end of the turn in [begin, end): behind its end-of-turn token, in front of what the
// template adds after that; without such a token, the end of what the message said.
size_t TurnFinder::end_of_turn(size_t i, size_t begin, size_t end) const {
  std::string_view content = content_of(messages_[i]);
  content = content.substr(0, trimmed_end(content, 0, content.size()));
  const bool known = !content.empty() && !has_calls(messages_[i]);
  const std::string_view all(text_);
  std::vector<size_t> run;  // the special tokens that close the turn, last first
  for (size_t t = token_at(end); t > token_at(begin);) {
    const auto [from, to] = encoding_.offsets[--t];
    if (to > end) continue;
    if (from < said_) break;
    if (special(t)) {
      // A second one in front closes the turn only if the message stands before it.
      const size_t said = trimmed_end(all, begin, from);
      const bool behind_message = known && all.substr(begin, said - begin).ends_with(content);
      if (!run.empty() && !behind_message && !is_eos(t)) break;
      run.push_back(t);
    } else if (!blank(all.substr(from, to - from))) {
      break;
    }
  }
  std::reverse(run.begin(), run.end());
  if (!run.empty()) return closing(run);
  return said_end(i, begin, end);
}

size_t TurnFinder::said_end(size_t i, size_t begin, size_t end) const {
  const std::string_view content = content_of(messages_[i]);
  const std::string_view turn = std::string_view(text_).substr(begin, end - begin);
  if (!has_calls(messages_[i]) && !content.empty() && turn.ends_with(content)) return end;
  return trimmed_end(text_, begin, end);
}

// The whole conversation with message i saying something else.
std::optional<std::string> TurnFinder::other_text(size_t i) const {
  Json all = messages_;
  Json& message = all[i];
  for (const char* key : {"reasoning_content", "thinking", "reasoning"}) message.erase(key);
  if (!message.contains("content") || !message["content"].is_array())
    message["content"] = kOther;
  else
    message["content"] = Json::array({Json{{"type", "text"}, {"text", kOther}}});
  if (has_calls(message)) {
    const Json calls = message["tool_calls"];
    message.erase("tool_calls");
    if (auto text = render_(all, false); text.ok()) return *text;
    message["tool_calls"] = calls;
    for (Json& call : message["tool_calls"]) {
      Json& function = call.contains("function") ? call["function"] : call;
      function["name"] = kOther;
    }
    if (auto text = render_(all, false); text.ok()) return *text;
    message["content"] = messages_[i].value("content", Json());
    if (message["content"].is_null() && !messages_[i].contains("content")) message.erase("content");
  }
  auto text = render_(all, false);
  if (!text.ok()) return std::nullopt;
  return *text;
}

std::optional<Span> TurnFinder::by_difference(size_t i) {
  const auto other = other_text(i);
  if (!other) return std::nullopt;
  const std::string& a = text_;
  const std::string& b = *other;
  const size_t shorter = std::min(a.size(), b.size());
  size_t begin = 0;
  while (begin < shorter && a[begin] == b[begin]) ++begin;
  size_t tail = 0;
  while (tail < shorter - begin && a[a.size() - 1 - tail] == b[b.size() - 1 - tail]) ++tail;
  // Not in the middle of a character.
  while (begin > 0 && begin < a.size() && (static_cast<uint8_t>(a[begin]) & 0xC0) == 0x80) --begin;
  size_t end = a.size() - tail;
  if (begin == a.size() && begin == b.size()) return std::nullopt;  // the message is not shown
  const size_t start = behind_header(i, begin);
  return Span{start, end_behind(i, start, std::max(begin, end))};
}

// The end of a turn whose words end at `said`: behind the end-of-turn token, if only blanks lie
// between.
size_t TurnFinder::end_behind(size_t i, size_t start, size_t said) const {
  const std::string_view all(text_);
  std::vector<size_t> run;
  for (size_t t = token_at(said); t < encoding_.ids.size(); ++t) {
    const auto [from, to] = encoding_.offsets[t];
    if (special(t) && (run.empty() || from == encoding_.offsets[run.back()].second)) {
      run.push_back(t);
    } else if (!run.empty() || !blank(all.substr(from, to - from))) {
      break;
    }
  }
  if (!run.empty()) return closing(run);
  // The end-of-turn token may have counted as part of the difference (calls that close with it).
  return end_of_turn(i, start, said);
}

// Where the header ends: behind the text of the generation prompt, looked for in front of what
// the message said.
size_t TurnFinder::behind_header(size_t i, size_t said) {
  const std::string& prompt = generation_prompt(i);
  if (prompt.empty()) return said;
  const size_t floor = last_end_;
  const std::string_view region = std::string_view(text_).substr(floor, said - floor);
  if (const size_t at = region.rfind(prompt); at != std::string_view::npos) {
    return floor + at + prompt.size();
  }
  return said;
}

const std::string& TurnFinder::generation_prompt(size_t i) {
  if (prompt_) return *prompt_;
  prompt_.emplace();
  const Json before = first_messages(i);
  for (const Json* part : {static_cast<const Json*>(&before), &messages_}) {
    if (part->empty()) continue;
    const auto with = render_(*part, true);
    const auto without = render_(*part, false);
    if (!with.ok() || !without.ok() || !with->starts_with(*without)) continue;
    prompt_ = with->substr(without->size());
    break;
  }
  return *prompt_;
}

}  // namespace lorry::chat

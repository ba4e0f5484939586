// A turn is found from the messages' structure alone. Most templates are monotone: the conversation
// up to a message renders to a prefix of the whole, and a turn lies between two such prefixes. For
// those that are not (Qwen3 drops earlier thinking, Mistral moves the system prompt to the last
// user message), one message of the whole conversation is changed, and what changes with it in the
// text is that message's. So it is, too, where a template has no generation prompt: the
// conversation up to a message then ends before that message's header, or, if the template writes
// the assistant's header at the end of every rendering, somewhere in it.
#include "chat/turn_finder.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "chat/calls.h"

namespace lorry::chat {

namespace {

// Private-use code points: no text begins or ends with these.
constexpr std::string_view kOther = "\xEE\xA3\xB1lorry\xEE\xA3\xB2";

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

bool blank(std::string_view s) { return std::all_of(s.begin(), s.end(), is_space); }

size_t trimmed_end(std::string_view s, size_t begin, size_t end) {
  while (end > begin && is_space(s[end - 1])) --end;
  return end;
}

std::string_view trimmed(std::string_view s) { return s.substr(0, trimmed_end(s, 0, s.size())); }

// What both end with.
std::string_view common_end(std::string_view a, std::string_view b) {
  const auto differ = std::mismatch(a.rbegin(), a.rend(), b.rbegin(), b.rend()).first;
  return a.substr(a.size() - static_cast<size_t>(differ - a.rbegin()));
}

std::string_view content_of(const Json& message) {
  const auto it = message.find("content");
  if (it == message.end() || !it->is_string()) return {};
  return it->get_ref<const std::string&>();
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
  const bool prompted = !generation_prompt(i).empty();
  auto span = prompted ? by_prefix(i) : without_prompt(i);
  if (!span && prompted) span = by_difference(i);
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
  const size_t said = trimmed_end(text_, begin, end);
  if (has_calls(messages_[i]) || content.empty()) return said;
  // White space at the end of the content is said, too.
  const size_t at = turn.rfind(content);
  return at == turn.npos ? said : std::max(said, begin + at + content.size());
}

// The first n messages with message i saying something else.
std::optional<std::string> TurnFinder::other_text(size_t i, size_t n) const {
  Json all = n == messages_.size() ? messages_ : first_messages(n);
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

// What of the text is another in `other`, where a message says something else; nullopt if nothing
// is: the message is not shown.
std::optional<Span> TurnFinder::difference(const std::string& other) const {
  const std::string& a = text_;
  const std::string& b = other;
  const size_t shorter = std::min(a.size(), b.size());
  size_t begin = 0;
  while (begin < shorter && a[begin] == b[begin]) ++begin;
  size_t tail = 0;
  while (tail < shorter - begin && a[a.size() - 1 - tail] == b[b.size() - 1 - tail]) ++tail;
  begin = utf8_start(a, begin);
  if (begin == a.size() && begin == b.size()) return std::nullopt;
  return Span{begin, std::max(begin, a.size() - tail)};
}

std::optional<Span> TurnFinder::by_difference(size_t i) {
  const auto other = other_text(i, messages_.size());
  const auto said = other ? difference(*other) : std::nullopt;
  if (!said) return std::nullopt;
  const size_t start = behind_header(i, said->first);
  return Span{start, end_behind(i, start, said->second, own_end(i, said->second))};
}

// The turn of message i where no generation prompt says what its header is: the header is all that
// the template writes before the words.
std::optional<Span> TurnFinder::without_prompt(size_t i) {
  const auto other = other_text(i, messages_.size());
  if (!other) return by_prefix(i);
  const auto said = difference(*other);
  if (!said) return std::nullopt;
  const size_t limit = own_end(i, said->second);
  Span turn{said->first, end_behind(i, said->first, said->second, limit)};
  if (i == 0) return turn;
  const auto before = render_(first_messages(i), false);
  const auto through = i + 1 == messages_.size() ? Result<std::string>(text_)
                                                 : render_(first_messages(i + 1), false);
  if (!before.ok() || !through.ok()) return turn;
  const std::string_view all(text_);
  // The header that a template writes at the end of every rendering is not the turn's end.
  const std::string_view shared = trimmed(common_end(*before, *through));
  const bool header_always =
      !blank(shared) && trimmed(all.substr(0, said->first)).ends_with(shared);
  if (header_always) {
    const size_t next = std::min(limit, before_next_header(i, said->second));
    turn.second = end_behind(i, said->first, said->second, token_around(encoding_, next).first);
    return turn;
  }
  // The header belongs to the message before (`[/INST]`): a space after it is the model's.
  const size_t served = before->size();
  if (all.starts_with(*before) && served >= last_end_ && served <= turn.first &&
      blank(all.substr(served, turn.first - served)))
    turn.first = served;
  // The turn is closed by words (`</turn>`).
  if (!ends_in_special(turn.second)) turn.second = trimmed_end(all, turn.second, limit);
  return turn;
}

bool TurnFinder::ends_in_special(size_t end) const {
  const size_t t = token_at(end);
  return t > 0 && special(t - 1) && encoding_.offsets[t - 1].second == end;
}

// How far the text behind `said`, where message i's words end, is what the template also writes if
// the conversation ends with this message: no part of the next header.
size_t TurnFinder::own_end(size_t i, size_t said) const {
  if (i + 1 == messages_.size()) return text_.size();
  const auto alone = other_text(i, i + 1);
  if (!alone) return text_.size();
  const size_t at = alone->rfind(kOther);
  if (at == std::string::npos) return text_.size();
  const std::string_view theirs = std::string_view(*alone).substr(at + kOther.size());
  const std::string_view ours = std::string_view(text_).substr(said);
  const auto differ = std::mismatch(ours.begin(), ours.end(), theirs.begin(), theirs.end()).first;
  // Calls may have stayed in the other text: what follows is then theirs.
  if (differ == ours.begin() && has_calls(messages_[i])) return text_.size();
  return said + static_cast<size_t>(differ - ours.begin());
}

// Where, at the latest, the next header begins behind `said`, where message i's words end, if the
// assistant's header always follows: where the text differs from one in which the user speaks next,
// and before a special token with which the whole text opens.
size_t TurnFinder::before_next_header(size_t i, size_t said) const {
  size_t end = text_.size();
  Json longer = first_messages(i + 1);
  longer.push_back({{"role", "user"}, {"content", kOther}});
  const std::string_view ours(text_);
  const auto other = render_(longer, false);
  if (other.ok() && other->starts_with(ours.substr(0, said))) {
    const auto differ = std::mismatch(ours.begin(), ours.end(), other->begin(), other->end()).first;
    end = static_cast<size_t>(differ - ours.begin());
  }
  for (size_t t = token_at(said); t < encoding_.ids.size(); ++t) {
    if (opens(encoding_.ids[t])) return std::min<size_t>(end, encoding_.offsets[t].first);
  }
  return end;
}

// Whether a token is one of the special ones, but for EOS, with which the text begins.
bool TurnFinder::opens(int32_t id) const {
  for (size_t t = 0; t < encoding_.ids.size() && special(t); ++t) {
    if (encoding_.ids[t] == id) return !is_eos(t);
  }
  return false;
}

// The end of a turn whose words end at `said`: behind the end-of-turn token, if only blanks lie
// between. What begins at or after `limit` is another's header, but for EOS.
size_t TurnFinder::end_behind(size_t i, size_t start, size_t said, size_t limit) const {
  const std::string_view all(text_);
  std::vector<size_t> run;
  size_t first = token_at(said);
  // The ends of two special tokens may be alike ("|>"), and words end within none.
  if (first > 0 && encoding_.offsets[first - 1].second > said && special(first - 1)) --first;
  for (size_t t = first; t < encoding_.ids.size(); ++t) {
    const auto [from, to] = encoding_.offsets[t];
    const bool closes = special(t) && (from < limit || is_eos(t));
    if (closes && (run.empty() || from == encoding_.offsets[run.back()].second)) {
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

// A mark is a private-use code point, one for each message. Where templates look at a content (they
// strip it, look for a tag at its ends, cut it at `</think>`), they look at its white space and its
// tags; so no mark stands outside of these.
#include "chat/regions.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace lorry::chat {

namespace {

// U+F0000 and up, plane 15: F3 B0 80 80 to F3 BF BF BD.
constexpr size_t kMarks = 0xFFFE;
constexpr size_t kMarkBytes = 4;
constexpr size_t kLongestTag = 64;
constexpr std::string_view kThinkEnd = "</think>";

std::string mark(size_t message) {
  const auto bits = [&](int shift) {
    return static_cast<char>(0x80 | ((message >> shift) & 0x3F));
  };
  return {'\xF3', static_cast<char>(0xB0 | (message >> 12)), bits(6), bits(0)};
}

bool is_mark(std::string_view s, size_t at) {
  return s.size() - at >= kMarkBytes && s[at] == '\xF3' && static_cast<uint8_t>(s[at + 1]) >= 0xB0;
}

size_t marked_message(std::string_view s, size_t at) {
  const auto bits = [&](size_t i) { return static_cast<size_t>(s[at + i]) & 0x3F; };
  return (bits(1) & 0xF) << 12 | bits(2) << 6 | bits(3);
}

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

size_t behind_spaces(std::string_view s, size_t begin, size_t end) {
  while (begin < end && is_space(s[begin])) ++begin;
  return begin;
}

size_t before_spaces(std::string_view s, size_t begin, size_t end) {
  while (end > begin && is_space(s[end - 1])) --end;
  return end;
}

// `<think>`, `</think>`; special tokens (`<|end|>`) are words.
bool is_tag(std::string_view s) {
  const auto is_letter = [](char c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; };
  return s.size() > 2 && (is_letter(s[1]) || s[1] == '/');
}

// Behind the tags (`<think>`, `<tool_response>`) that s[begin, end) begins with.
size_t behind_tags(std::string_view s, size_t begin, size_t end) {
  while (begin < end && s[begin] == '<') {
    const size_t close = s.substr(begin, std::min(kLongestTag, end - begin)).find_first_of("> \n");
    if (close == s.npos || s[begin + close] != '>') break;
    if (!is_tag(s.substr(begin, close + 1))) break;
    begin = behind_spaces(s, begin + close + 1, end);
  }
  return begin;
}

size_t before_tags(std::string_view s, size_t begin, size_t end) {
  while (end > begin && s[end - 1] == '>') {
    const size_t from = std::max(begin, end - std::min(end, kLongestTag));
    const size_t open = s.substr(from, end - from).find_last_of("< \n");
    if (open == s.npos || s[from + open] != '<') break;
    if (!is_tag(s.substr(from + open, end - from - open))) break;
    end = before_spaces(s, begin, from + open);
  }
  return end;
}

// Where the marks of a string go, in order.
std::vector<size_t> mark_places(std::string_view s) {
  const size_t first = behind_spaces(s, 0, s.size());
  const size_t begin = behind_tags(s, first, before_spaces(s, first, s.size()));
  const size_t end = before_tags(s, begin, before_spaces(s, first, s.size()));
  if (begin >= end) return {};  // nothing but white space and tags
  std::vector<size_t> places = {begin, end};
  for (const size_t at : {s.find(kThinkEnd), s.rfind(kThinkEnd)}) {
    if (at == s.npos || at <= begin || at >= end) continue;
    places.push_back(before_spaces(s, begin, at));
    places.push_back(behind_spaces(s, at + kThinkEnd.size(), s.size()));
  }
  std::sort(places.begin(), places.end());
  places.erase(std::unique(places.begin(), places.end()), places.end());
  return places;
}

void put_marks(std::string& s, const std::vector<size_t>& places, const std::string& mark) {
  for (auto place = places.rbegin(); place != places.rend(); ++place) s.insert(*place, mark);
}

void mark_string(Json& value, const std::string& mark) {
  auto& s = value.get_ref<std::string&>();
  put_marks(s, mark_places(s), mark);
}

// Strings, and keys at their ends.
void mark_all(Json& value, const std::string& mark) {
  if (value.is_string()) return mark_string(value, mark);
  if (value.is_array()) {
    for (Json& item : value) mark_all(item, mark);
  } else if (value.is_object()) {
    Json marked = Json::object();
    for (auto& [key, item] : value.get_ref<Json::object_t&>()) {
      mark_all(item, mark);
      marked.get_ref<Json::object_t&>().emplace_back(key + mark, std::move(item));
    }
    value = std::move(marked);
  }
}

void mark_arguments(Json& arguments, const std::string& mark) {
  if (!arguments.is_string()) return mark_all(arguments, mark);
  auto& s = arguments.get_ref<std::string&>();
  const bool object = s.size() >= 2 && s.front() == '{' && s.back() == '}';
  if (object) {
    put_marks(s, {1, s.size() - 1}, mark);
  } else {
    mark_string(arguments, mark);
  }
}

void mark_call(Json& call, const std::string& mark) {
  if (!call.is_object()) return;
  const auto inner = call.find("function");
  Json& function = inner != call.end() && inner->is_object() ? *inner : call;
  // Not the name: templates say it again where they show the result.
  if (const auto arguments = function.find("arguments"); arguments != function.end())
    mark_arguments(*arguments, mark);
}

void mark_message(Json& message, const std::string& mark) {
  for (const char* key : {"content", "reasoning_content", "thinking", "reasoning"}) {
    const auto value = message.find(key);
    if (value == message.end()) continue;
    if (value->is_string()) mark_string(*value, mark);
    if (!value->is_array()) continue;
    for (Json& part : *value) {
      if (!part.is_object()) continue;
      if (const auto text = part.find("text"); text != part.end() && text->is_string())
        mark_string(*text, mark);
    }
  }
  const auto calls = message.find("tool_calls");
  if (calls == message.end() || !calls->is_array()) return;
  for (Json& call : *calls) mark_call(call, mark);
}

bool in_order(const Regions& regions) {
  std::vector<Span> all;
  for (const auto& region : regions) {
    if (region) all.push_back(*region);
  }
  std::sort(all.begin(), all.end());
  for (size_t i = 1; i < all.size(); ++i) {
    if (all[i].first < all[i - 1].second) return false;
  }
  return true;
}

}  // namespace

std::optional<Regions> find_regions(const Json& messages, const std::string& text,
                                    const SpanRender& render) {
  if (messages.size() > kMarks) return std::nullopt;
  Json marked = messages;
  for (size_t i = 0; i < marked.size(); ++i) mark_message(marked[i], mark(i));
  const auto rendered = render(marked, false);
  if (!rendered.ok()) return std::nullopt;
  const std::string_view from = *rendered;
  Regions regions(messages.size());
  size_t at = 0;  // in the text
  for (size_t i = 0; i < from.size();) {
    if (is_mark(from, i)) {
      const size_t message = marked_message(from, i);
      if (message >= regions.size()) return std::nullopt;
      auto& region = regions[message];
      region = {region ? region->first : at, at};
      i += kMarkBytes;
      continue;
    }
    const size_t next = std::min(from.find('\xF3', i + 1), from.size());
    if (text.compare(at, next - i, from.substr(i, next - i)) != 0) return std::nullopt;
    at += next - i;
    i = next;
  }
  if (at != text.size() || !in_order(regions)) return std::nullopt;
  return regions;
}

namespace {

const std::string kNoRole;

const std::string& role_of(const Json& message) {
  const auto role = message.find("role");
  if (role == message.end() || !role->is_string()) return kNoRole;
  return role->get_ref<const std::string&>();
}

// The content of a message that is nothing else, and whose marks would stand at its ends; else "".
std::string_view plain_content(const Json& message) {
  std::string_view content;
  for (const auto& [key, value] : message.get_ref<const Json::object_t&>()) {
    if (key == "role") continue;
    if (key != "content" || !value.is_string()) return {};
    content = value.get_ref<const std::string&>();
  }
  if (content.empty() || is_space(content.front()) || is_space(content.back())) return {};
  if (content.front() == '<' || content.back() == '>') return {};
  return content.find(kThinkEnd) == content.npos ? content : std::string_view();
}

}  // namespace

void Gaps::add(const Json& messages, const std::string& text, const Regions& regions) {
  std::vector<std::pair<Span, std::string>> all;
  for (size_t i = 0; i < regions.size(); ++i) {
    if (regions[i]) all.emplace_back(*regions[i], role_of(messages[i]));
  }
  std::sort(all.begin(), all.end());
  all.emplace_back(Span{text.size(), text.size()}, kNoRole);
  size_t end = 0;
  std::string role;
  for (auto& [region, next_role] : all) {
    auto& known = gaps_[{role, next_role}];
    std::string gap = text.substr(end, region.first - end);
    if (std::find(known.begin(), known.end(), gap) == known.end()) known.push_back(std::move(gap));
    end = region.second;
    role = std::move(next_role);
  }
}

std::optional<Regions> Gaps::read(const Json& messages, const std::string& text) const {
  // Where `words` begin behind the one gap that fits; npos if none or several do.
  const auto find_words = [&](size_t at, const std::string& before, const std::string& behind,
                              std::string_view words) {
    size_t found = std::string::npos;
    const auto known = gaps_.find({before, behind});
    if (known == gaps_.end()) return found;
    for (const std::string& gap : known->second) {
      if (text.compare(at, gap.size(), gap) != 0) continue;
      const size_t begin = at + gap.size();
      if (text.compare(begin, words.size(), words) != 0) continue;
      if (words.empty() && begin != text.size()) continue;  // behind the last message
      if (found != std::string::npos) return std::string::npos;
      found = begin;
    }
    return found;
  };
  Regions regions;
  size_t at = 0;
  const std::string* role = &kNoRole;
  for (const Json& message : messages) {
    const std::string_view words = plain_content(message);
    if (words.empty()) return std::nullopt;
    const size_t begin = find_words(at, *role, role_of(message), words);
    if (begin == std::string::npos) return std::nullopt;
    at = begin + words.size();
    regions.emplace_back(Span{begin, at});
    role = &role_of(message);
  }
  if (find_words(at, *role, kNoRole, {}) == std::string::npos) return std::nullopt;
  return regions;
}

}  // namespace lorry::chat

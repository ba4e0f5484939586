#include "chat/marks.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "chat/calls.h"

namespace lorry::chat {

// U+F0000 and up, plane 15: F3 B0 80 80 to F3 BF BF BD.
std::string mark(size_t number) {
  const auto bits = [&](int shift) { return static_cast<char>(0x80 | ((number >> shift) & 0x3F)); };
  return {'\xF3', static_cast<char>(0xB0 | (number >> 12)), bits(6), bits(0)};
}

bool is_mark(std::string_view s, size_t at) {
  return s.size() - at >= kMarkBytes && s[at] == '\xF3' && static_cast<uint8_t>(s[at + 1]) >= 0xB0;
}

size_t mark_number(std::string_view s, size_t at) {
  const auto bits = [&](size_t i) { return static_cast<size_t>(s[at + i]) & 0x3F; };
  return (bits(1) & 0xF) << 12 | bits(2) << 6 | bits(3);
}

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

namespace {

constexpr size_t kLongestTag = 64;

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

// Where the tags (`<think>`, `<tool_response>`) at the start of s[begin, end) end.
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

void put_marks(std::string& s, const std::vector<size_t>& places, const std::string& mark) {
  for (auto place = places.rbegin(); place != places.rend(); ++place) s.insert(*place, mark);
}

}  // namespace

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

void mark_string(Json& value, const std::string& mark) {
  auto& s = value.get_ref<std::string&>();
  put_marks(s, mark_places(s), mark);
}

namespace {

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

}  // namespace

void mark_call(Json& call, const std::string& mark) {
  if (!call.is_object()) return;
  Json& function = function_of(call);
  // Not the name: templates say it again where they show the result.
  if (const auto arguments = function.find("arguments"); arguments != function.end())
    mark_arguments(*arguments, mark);
}

}  // namespace lorry::chat

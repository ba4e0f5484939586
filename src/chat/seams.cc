#include "chat/seams.h"

namespace lorry::chat {

namespace {

constexpr char kNumber = '\x01', kName = '\x02';

bool is_digit(char c) { return c >= '0' && c <= '9'; }

size_t number_at(std::string_view text, size_t at) {
  size_t end = at;
  while (end < text.size() && (is_digit(text[end]) || (end > at && text[end] == '.'))) ++end;
  return end - at;
}

size_t name_at(std::string_view text, size_t at, const std::vector<std::string_view>& names) {
  size_t longest = 0;
  for (const std::string_view name : names) {
    if (name.size() > longest && text.substr(at, name.size()) == name) longest = name.size();
  }
  return longest;
}

}  // namespace

SeamText::SeamText(std::string_view text, const std::vector<std::string_view>& names) {
  text_.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t name = name_at(text, at, names);
    const size_t size = name > 0 ? name : number_at(text, at);
    if (size == 0) {
      text_ += text[at++];
      continue;
    }
    cuts_.push_back({at, at + size, text_.size()});
    text_ += name > 0 ? kName : kNumber;
    at += size;
  }
}

std::optional<size_t> SeamText::place(size_t at) const {
  size_t shorter = 0;
  for (const Cut& cut : cuts_) {
    if (at <= cut.from) break;
    if (at < cut.to) return std::nullopt;
    shorter += cut.to - cut.from - 1;
  }
  return at - shorter;
}

size_t SeamText::original(size_t place) const {
  size_t longer = 0;
  for (const Cut& cut : cuts_) {
    if (place <= cut.place) break;
    longer += cut.to - cut.from - 1;
  }
  return place + longer;
}

}  // namespace lorry::chat

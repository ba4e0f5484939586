#include "store/s3_xml.h"

#include <charconv>

#include "base/utf8.h"

namespace lorry::store {
namespace {

bool append_entity(std::string& text, std::string_view name) {
  if (name == "amp")
    text += '&';
  else if (name == "lt")
    text += '<';
  else if (name == "gt")
    text += '>';
  else if (name == "quot")
    text += '"';
  else if (name == "apos")
    text += '\'';
  else if (name.size() > 1 && name[0] == '#') {
    const bool hex = name[1] == 'x' || name[1] == 'X';
    const std::string_view digits = name.substr(hex ? 2 : 1);
    uint32_t code = 0;
    const auto parsed =
        std::from_chars(digits.data(), digits.data() + digits.size(), code, hex ? 16 : 10);
    if (parsed.ec != std::errc() || code > 0x10ffff) return false;
    append_utf8(text, code);
  } else {
    return false;
  }
  return true;
}

std::string unescape(std::string_view raw) {
  std::string text;
  text.reserve(raw.size());
  for (size_t i = 0; i < raw.size(); ++i) {
    const size_t end = raw[i] == '&' ? raw.find(';', i) : std::string_view::npos;
    if (end != std::string_view::npos && append_entity(text, raw.substr(i + 1, end - i - 1))) {
      i = end;
    } else {
      text += raw[i];
    }
  }
  return text;
}

/// The tag at `at`, which is a '<': its name without prefix, and the place behind its '>'.
struct Tag {
  std::string_view name;
  size_t end = 0;
  bool closing = false, empty = false;
};

Tag tag_at(std::string_view xml, size_t at) {
  Tag tag;
  const size_t close = xml.find('>', at);
  tag.end = close == std::string_view::npos ? xml.size() : close + 1;
  std::string_view inside = xml.substr(at + 1, tag.end - at - 1);
  if (!inside.empty() && inside.back() == '>') inside.remove_suffix(1);
  tag.closing = inside.starts_with('/');
  if (tag.closing) inside.remove_prefix(1);
  tag.empty = inside.ends_with('/');
  if (tag.empty) inside.remove_suffix(1);
  inside = inside.substr(0, inside.find_first_of(" \t\r\n"));
  const size_t colon = inside.find(':');
  tag.name = colon == std::string_view::npos ? inside : inside.substr(colon + 1);
  return tag;
}

}  // namespace

std::vector<std::string_view> xml_elements(std::string_view xml, std::string_view name) {
  std::vector<std::string_view> found;
  size_t begin = 0;
  int depth = 0;
  for (size_t at = xml.find('<'); at != std::string_view::npos;) {
    const Tag tag = tag_at(xml, at);
    if (tag.name == name) {
      if (tag.empty) {
        if (depth == 0) found.push_back({});
      } else if (!tag.closing) {
        if (depth++ == 0) begin = tag.end;
      } else if (depth > 0 && --depth == 0) {
        found.push_back(xml.substr(begin, at - begin));
      }
    }
    at = xml.find('<', tag.end);
  }
  return found;
}

std::optional<std::string> xml_text(std::string_view xml, std::string_view name) {
  const auto found = xml_elements(xml, name);
  if (found.empty()) return std::nullopt;
  return unescape(found.front());
}

std::string xml_escape(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

}  // namespace lorry::store

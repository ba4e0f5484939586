#include "hub/yaml.h"

#include <fmt/format.h>
#include <yaml.h>

#include <charconv>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

namespace lorry::hub {
namespace {

constexpr size_t kMaxNodes = 1'000'000;
constexpr int kMaxDepth = 200;

/// Takes one event at a time and frees it.
class Events {
 public:
  Events(std::string_view text, std::string_view what) : what_(what) {
    yaml_parser_initialize(&parser_);
    yaml_parser_set_encoding(&parser_, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(
        &parser_, reinterpret_cast<const unsigned char*>(text.empty() ? "" : text.data()),
        text.size());
  }
  ~Events() {
    drop();
    yaml_parser_delete(&parser_);
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  Result<const yaml_event_t*> next() {
    drop();
    if (!yaml_parser_parse(&parser_, &event_)) {
      return invalid_input(fmt::format("{}: line {}: {}", what_, parser_.problem_mark.line + 1,
                                       parser_.problem ? parser_.problem : "not valid YAML"));
    }
    held_ = true;
    return static_cast<const yaml_event_t*>(&event_);
  }

  Error error(std::string_view message) const {
    return invalid_input(
        fmt::format("{}: line {}: {}", what_, event_.start_mark.line + 1, message));
  }

 private:
  void drop() {
    if (held_) yaml_event_delete(&event_);
    held_ = false;
  }

  std::string what_;
  yaml_parser_t parser_;
  yaml_event_t event_{};
  bool held_ = false;
};

std::string text_of(const yaml_char_t* text) {
  return text ? reinterpret_cast<const char*>(text) : "";
}

bool one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  for (const auto candidate : words) {
    if (word == candidate) return true;
  }
  return false;
}

/// Decimal, 0x, 0b or octal with a leading zero, underscores between digits.
std::optional<int64_t> as_integer(std::string_view text) {
  std::string digits;
  bool negative = false;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  if (text.empty() || !std::isdigit(static_cast<unsigned char>(text[0]))) return std::nullopt;
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0b")) {
    base = text[1] == 'x' ? 16 : 2;
    text.remove_prefix(2);
  } else if (text.size() > 1 && text[0] == '0') {
    base = 8;
  }
  for (const char c : text) {
    if (c != '_') digits += c;
  }
  int64_t value = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size()) {
    return std::nullopt;
  }
  return negative ? -value : value;
}

std::optional<double> as_float(std::string_view text) {
  if (one_of(text, {".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"})) return INFINITY;
  if (one_of(text, {"-.inf", "-.Inf", "-.INF"})) return -INFINITY;
  if (one_of(text, {".nan", ".NaN", ".NAN"})) return NAN;
  // PyYAML asks for a dot, so that 1e3 stays text.
  if (text.find('.') == std::string_view::npos) return std::nullopt;
  std::string digits;
  for (const char c : text) {
    if (c != '_') digits += c;
  }
  if (digits.find_first_not_of("0123456789.eE+-") != std::string::npos) return std::nullopt;
  const char* begin = digits.data() + (digits[0] == '+' ? 1 : 0);
  double value = 0;
  const auto [end, error] = std::from_chars(begin, digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

Json resolve_plain(const std::string& text) {
  if (one_of(text, {"", "~", "null", "Null", "NULL"})) return nullptr;
  if (one_of(text, {"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"})) return true;
  if (one_of(text, {"no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"})) {
    return false;
  }
  if (const auto integer = as_integer(text)) return *integer;
  if (const auto number = as_float(text)) return *number;
  return text;
}

class Builder {
 public:
  Builder(std::string_view text, std::string_view what) : events_(text, what) {}

  Result<Json> document() {
    while (true) {
      LORRY_ASSIGN(const auto* event, events_.next());
      if (event->type == YAML_STREAM_END_EVENT) return Json();
      if (event->type == YAML_DOCUMENT_START_EVENT) break;
    }
    LORRY_ASSIGN(const auto* event, events_.next());
    return node(*event, 0);
  }

 private:
  Result<Json> node(const yaml_event_t& event, int depth) {
    if (++nodes_ > kMaxNodes || depth > kMaxDepth) return events_.error("too large or too deep");
    switch (event.type) {
      case YAML_ALIAS_EVENT:
        return alias(text_of(event.data.alias.anchor));
      case YAML_SCALAR_EVENT:
        return scalar(event);
      case YAML_SEQUENCE_START_EVENT:
        return sequence(text_of(event.data.sequence_start.anchor), depth);
      case YAML_MAPPING_START_EVENT:
        return mapping(text_of(event.data.mapping_start.anchor), depth);
      default:
        return events_.error("unexpected end");
    }
  }

  Result<Json> alias(const std::string& name) {
    const auto found = anchors_.find(name);
    if (found == anchors_.end()) return events_.error(fmt::format("no anchor &{}", name));
    nodes_ += found->second.nodes;
    if (nodes_ > kMaxNodes) return events_.error("too large");
    return found->second.value;
  }

  Result<Json> scalar(const yaml_event_t& event) {
    const auto& it = event.data.scalar;
    const std::string text(reinterpret_cast<const char*>(it.value), it.length);
    const std::string tag = text_of(it.tag);
    const bool plain = it.style == YAML_PLAIN_SCALAR_STYLE && it.plain_implicit;
    Json value = plain && (tag.empty() || tag == "!") ? resolve_plain(text) : Json(text);
    keep(text_of(it.anchor), value, 1);
    return value;
  }

  Result<Json> sequence(const std::string& anchor, int depth) {
    const size_t before = nodes_;
    Json list = Json::array();
    while (true) {
      LORRY_ASSIGN(const auto* event, events_.next());
      if (event->type == YAML_SEQUENCE_END_EVENT) break;
      LORRY_ASSIGN(auto value, node(*event, depth + 1));
      list.push_back(std::move(value));
    }
    keep(anchor, list, nodes_ - before + 1);
    return list;
  }

  Result<Json> mapping(const std::string& anchor, int depth) {
    const size_t before = nodes_;
    Json object = Json::object();
    Json merged = Json::object();
    while (true) {
      LORRY_ASSIGN(const auto* event, events_.next());
      if (event->type == YAML_MAPPING_END_EVENT) break;
      std::string text;
      if (event->type == YAML_SCALAR_EVENT) text = text_of(event->data.scalar.value);
      LORRY_ASSIGN(const auto key, node(*event, depth + 1));
      if (key.is_object() || key.is_array()) return events_.error("a key must be text");
      const std::string name = key.is_string() ? key.get<std::string>() : text;
      LORRY_ASSIGN(event, events_.next());
      LORRY_ASSIGN(auto value, node(*event, depth + 1));
      if (name == "<<") {
        merge(value, merged);
      } else {
        object[name] = std::move(value);
      }
    }
    for (const auto& [name, value] : merged.items()) {
      if (!object.contains(name)) object[name] = value;
    }
    keep(anchor, object, nodes_ - before + 1);
    return object;
  }

  /// `<<: *base` or `<<: [*a, *b]`: what the mapping does not have itself; the first one counts.
  static void merge(const Json& value, Json& into) {
    if (value.is_array()) {
      for (const auto& one : value) merge(one, into);
    } else if (value.is_object()) {
      for (const auto& [name, one] : value.items()) {
        if (!into.contains(name)) into[name] = one;
      }
    }
  }

  void keep(const std::string& anchor, const Json& value, size_t nodes) {
    if (!anchor.empty()) anchors_[anchor] = {value, nodes};
  }

  struct Anchor {
    Json value;
    size_t nodes = 0;
  };
  Events events_;
  std::map<std::string, Anchor> anchors_;
  size_t nodes_ = 0;
};

}  // namespace

Result<Json> parse_yaml(std::string_view text, std::string_view what) {
  return Builder(text, what).document();
}

}  // namespace lorry::hub

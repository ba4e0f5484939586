#include "chat/call_form.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "chat/calls.h"

namespace lorry::chat {
namespace {

// Of no template.
constexpr const char* kNames[] = {"qvxzj_first", "qvxzj_second"};
constexpr std::string_view kSpaces = " \t\r\n";

Json tools() {
  Json out = Json::array();
  for (const char* name : kNames) {
    out.push_back({{"type", "function"},
                   {"function",
                    {{"name", name},
                     {"description", "looks."},
                     {"parameters",
                      {{"type", "object"},
                       {"properties", {{"word", {{"type", "string"}, {"description", "a word"}}}}},
                       {"required", {"word"}}}}}}});
  }
  return out;
}

Json question() { return {{"role", "user"}, {"content", "Look."}}; }

Json calling(size_t count) {
  Json calls = Json::array();
  for (size_t i = 0; i < count; ++i) {
    calls.push_back({{"id", i == 0 ? "qvxzj0001" : "qvxzj0002"},
                     {"type", "function"},
                     {"function", {{"name", kNames[i]}, {"arguments", {{"word", "one"}}}}}});
  }
  return {{"role", "assistant"}, {"content", ""}, {"tool_calls", std::move(calls)}};
}

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kSpaces);
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(kSpaces) + 1 - first);
}

std::string_view last_word(std::string_view text) {
  text = trimmed(text);
  const size_t space = text.find_last_of(kSpaces);
  return space == text.npos ? text : text.substr(space + 1);
}

bool is_call_of(std::string_view json, const char* name) {
  auto parsed = parse_json(json, "call");
  if (!parsed.ok() || !parsed->is_object()) return false;
  const Json& function = function_of(*parsed);
  const auto it = function.find("name");
  return it != function.end() && *it == name;
}

struct Place {
  size_t begin = 0, end = 0;
};

/// The JSON object that calls `name`, at or after `from`.
std::optional<Place> find_call(std::string_view text, size_t from, const char* name) {
  for (size_t at = text.find('{', from); at != text.npos; at = text.find('{', at + 1)) {
    const size_t end = end_of_json(text, at);
    if (end != text.npos && is_call_of(text.substr(at, end - at), name)) return Place{at, end};
  }
  return std::nullopt;
}

/// Where the answer begins: after what the prompt for it has in common with the conversation.
size_t answer_begin(std::string_view prompt, std::string_view text) {
  const auto [in_prompt, in_text] =
      std::mismatch(prompt.begin(), prompt.end(), text.begin(), text.end());
  size_t at = static_cast<size_t>(in_text - text.begin());
  if (in_prompt == prompt.end()) return at;
  // The prompt goes on otherwise, with a thought, say: back to the end of their last common word.
  while (at > 0 && kSpaces.find(text[at - 1]) == kSpaces.npos) --at;
  return at;
}

}  // namespace

size_t end_of_json(std::string_view text, size_t begin) {
  int64_t depth = 0;
  bool quoted = false;
  for (size_t at = begin; at < text.size(); ++at) {
    const char c = text[at];
    if (quoted) {
      if (c == '\\') ++at;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (--depth == 0) return at + 1;
    }
  }
  return text.npos;
}

std::optional<CallForm> find_call_form(const CallRender& render) {
  const auto prompt = render(Json::array({question()}), tools(), true);
  auto text = render(Json::array({question(), calling(2)}), tools(), false);
  const bool two = text.ok();  // some templates take one call only
  if (!two) text = render(Json::array({question(), calling(1)}), tools(), false);
  if (!prompt.ok() || !text.ok()) return std::nullopt;
  const size_t begin = answer_begin(*prompt, *text);
  const auto first = find_call(*text, begin, kNames[0]);
  if (!first) return std::nullopt;
  const std::string_view all = *text;
  std::string_view before = trimmed(all.substr(begin, first->begin - begin));
  if (before.ends_with('[')) before.remove_suffix(1);  // a list
  CallForm form;
  form.open = last_word(before);
  form.bare = form.open.empty();
  if (!two || form.bare) return form;
  const auto second = find_call(all, first->end, kNames[1]);
  if (!second) return std::nullopt;
  std::string_view between = trimmed(all.substr(first->end, second->begin - first->end));
  if (!between.ends_with(form.open)) return form;  // a list: one opening for all
  between.remove_suffix(form.open.size());
  form.close = trimmed(between);
  return form;
}

bool shows_tools(const CallRender& render) {
  const auto prompt = render(Json::array({question()}), tools(), true);
  return !prompt.ok() || prompt->find(kNames[0]) != std::string::npos;
}

CallForm without_special_tokens(CallForm form, const tokenizer::Tokenizer& tokenizer,
                                bool skipped) {
  const auto hidden = [&](const std::string& text) {
    const auto id = tokenizer.token_to_id(text);
    return skipped && id && tokenizer.is_special(*id);
  };
  if (hidden(form.close)) form.close.clear();
  if (!hidden(form.open)) return form;
  form.open.clear();
  form.bare = true;
  return form;
}

}  // namespace lorry::chat

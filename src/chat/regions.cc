#include "chat/regions.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "chat/marks.h"

namespace lorry::chat {

namespace {

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
      const size_t message = mark_number(from, i);
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

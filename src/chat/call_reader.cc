#include "chat/call_reader.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "chat/calls.h"

namespace lorry::chat {
namespace {

constexpr std::string_view kSpaces = " \t\r\n";
/// Llama 3.x begins some calls with it; it is no part of what the template writes.
constexpr std::string_view kPythonTag = "<|python_tag|>";

size_t skip_spaces(std::string_view text, size_t at) {
  return std::min(text.find_first_not_of(kSpaces, at), text.size());
}

/// Whether JSON that may be a call can begin with this.
bool may_be_call(std::string_view json) {
  if (json[0] != '{' && json[0] != '[') return false;
  const size_t next = skip_spaces(json, 1);
  return next == json.size() || json[next] == (json[0] == '{' ? '"' : '{');
}

/// Where the text ends as `word` may go on; its size if it does not.
size_t begin_of(std::string_view word, std::string_view text) {
  size_t at = text.size() - std::min(text.size(), word.empty() ? 0 : word.size() - 1);
  while (!word.starts_with(text.substr(at))) ++at;
  return at;
}

std::string arguments_text(const Json& function) {
  for (const char* key : {"arguments", "parameters"}) {
    const auto it = function.find(key);
    if (it == function.end() || it->is_null()) continue;
    if (!it->is_string()) return python_json(*it);
    if (!it->get_ref<const std::string&>().empty()) return it->get<std::string>();
  }
  return "{}";
}

}  // namespace

CallReader::Piece CallReader::push(std::string_view text) {
  held_ += text;
  Piece out;
  for (bool more = true; more;) {
    switch (state_) {
      case State::kContent:
        more = read_content(out);
        break;
      case State::kCall:
        more = read_call(out);
        break;
      case State::kAfterCall:
        more = read_after_call();
        break;
    }
  }
  return out;
}

CallReader::Piece CallReader::finish() {
  Piece out;
  const bool spaces_alone = skip_spaces(held_, 0) == held_.size();
  const bool after_call = state_ == State::kAfterCall || (called_ && spaces_alone);
  if (!after_call) out.content = std::move(held_);
  held_.clear();
  return out;
}

void CallReader::emit(size_t size, Piece& out) {
  if (size == 0) return;
  line_start_ = held_[size - 1] == '\n';
  out.content.append(held_, 0, size);
  held_.erase(0, size);
}

bool CallReader::begins_line(size_t at) const {
  while (at > 0 && (held_[at - 1] == ' ' || held_[at - 1] == '\t')) --at;
  return at > 0 ? held_[at - 1] == '\n' : line_start_;
}

std::optional<std::pair<size_t, size_t>> CallReader::find_opening() const {
  std::optional<std::pair<size_t, size_t>> found;
  const auto offer = [&](size_t at, size_t size) {
    if (at != held_.npos && (!found || at < found->first)) found = {at, size};
  };
  if (!form_.open.empty()) offer(held_.find(form_.open), form_.open.size());
  if (!form_.bare) return found;
  offer(held_.find(kPythonTag), kPythonTag.size());
  size_t at = held_.find_first_of("{[");
  while (at != held_.npos && !begins_line(at)) at = held_.find_first_of("{[", at + 1);
  offer(at, 0);
  return found;
}

bool CallReader::read_content(Piece& out) {
  const auto opening = find_opening();
  // The space before a call is no content, and whether a call follows is not known yet.
  size_t certain = opening ? opening->first : begin_of(form_.open, held_);
  if (!opening && form_.bare) certain = std::min(certain, begin_of(kPythonTag, held_));
  const size_t last = certain == 0 ? held_.npos : held_.find_last_not_of(kSpaces, certain - 1);
  const size_t words = last == held_.npos ? 0 : last + 1;
  emit(words, out);
  if (!opening) return false;
  json_ = opening->first + opening->second - words;
  state_ = State::kCall;
  return true;
}

bool CallReader::read_call(Piece& out) {
  const size_t begin = skip_spaces(held_, json_);
  if (begin == held_.size()) return false;
  if (!may_be_call(std::string_view(held_).substr(begin))) {
    emit(std::max(json_, begin + (json_ == begin ? 1 : 0)), out);
    state_ = State::kContent;
    return true;
  }
  const size_t end = end_of_json(held_, begin);
  if (end == held_.npos) return false;
  auto calls = calls_of(std::string_view(held_).substr(begin, end - begin));
  if (!calls) {
    emit(end, out);
    state_ = State::kContent;
    return true;
  }
  std::move(calls->begin(), calls->end(), std::back_inserter(out.calls));
  called_ = true;
  held_.erase(0, end);
  line_start_ = true;
  state_ = State::kAfterCall;
  return true;
}

/// What closes the call, or stands between it and the next.
bool CallReader::read_after_call() {
  const size_t at = skip_spaces(held_, 0);
  if (at == held_.size()) return false;
  const std::string_view rest = std::string_view(held_).substr(at);
  if (!form_.close.empty() && rest.size() < form_.close.size() && form_.close.starts_with(rest))
    return false;
  if (!form_.close.empty() && rest.starts_with(form_.close)) {
    held_.erase(0, at + form_.close.size());
  } else if (form_.close.empty() && (rest[0] == ';' || rest[0] == ',')) {
    held_.erase(0, at + 1);
  }
  state_ = State::kContent;
  return true;
}

std::optional<std::vector<ToolCall>> CallReader::calls_of(std::string_view json) const {
  auto parsed = parse_json(json, "call");
  if (!parsed.ok()) return std::nullopt;
  if (!parsed->is_array()) parsed = Json::array({std::move(*parsed)});
  std::vector<ToolCall> calls;
  for (Json& one : *parsed) {
    if (!one.is_object()) return std::nullopt;
    const Json& function = function_of(one);
    const auto name = function.find("name");
    if (name == function.end() || !name->is_string()) return std::nullopt;
    const auto& text = name->get_ref<const std::string&>();
    const bool known = std::find(names_.begin(), names_.end(), text) != names_.end();
    const bool has_arguments = function.contains("arguments") || function.contains("parameters");
    if (text.empty() || (form_.bare && !(known && has_arguments))) return std::nullopt;
    calls.push_back({text, arguments_text(function)});
  }
  if (calls.empty()) return std::nullopt;
  return calls;
}

}  // namespace lorry::chat

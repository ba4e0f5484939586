#include "chat/call_ids.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <nlohmann/json.hpp>
#include <string>

#include "base/digest.h"
#include "chat/calls.h"

namespace lorry::chat {
namespace {

constexpr size_t kLength = 9;
constexpr std::string_view kLetters =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

bool fits(const std::string& id) {
  return id.size() == kLength && std::all_of(id.begin(), id.end(), [](char c) {
           return kLetters.find(c) != std::string_view::npos;
         });
}

std::string id_from(const std::string& what) {
  const std::string digest = sha256_hex(what);
  std::string id;
  for (size_t i = 0; i < kLength; ++i)
    id += kLetters[std::stoul(digest.substr(4 * i, 4), nullptr, 16) % kLetters.size()];
  return id;
}

std::string text_at(const Json& object, const char* key) {
  const auto value = object.find(key);
  return value != object.end() && value->is_string() ? value->get<std::string>() : std::string();
}

bool set_id(Json& object, const char* key, const std::string& had, std::string id) {
  if (had == id) return false;
  object[key] = std::move(id);
  return true;
}

}  // namespace

bool fit_call_ids(Json& messages) {
  bool changed = false;
  std::deque<std::string> open;  // ids of calls whose results have not come
  size_t calls = 0;
  for (Json& message : messages) {
    if (has_calls(message)) {
      open.clear();
      for (Json& call : message["tool_calls"]) {
        if (!call.is_object()) continue;
        const std::string had = text_at(call, "id");
        const std::string from =
            had.empty() ? fmt::format("{} {}", calls, dump_json(function_of(call))) : had;
        ++calls;
        open.push_back(fits(had) ? had : id_from(from));
        changed |= set_id(call, "id", had, open.back());
      }
      continue;
    }
    if (message.value("role", Json()) != "tool") continue;
    const std::string had = text_at(message, "tool_call_id");
    std::string id = fits(had) ? had : had.empty() ? std::string() : id_from(had);
    if (const auto at = std::find(open.begin(), open.end(), id); at != open.end()) open.erase(at);
    if (id.empty() && !open.empty()) {
      id = open.front();
      open.pop_front();
    }
    if (!id.empty()) changed |= set_id(message, "tool_call_id", had, std::move(id));
  }
  return changed;
}

}  // namespace lorry::chat

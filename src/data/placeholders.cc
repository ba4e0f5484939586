#include "data/placeholders.h"

#include <algorithm>
#include <cctype>
#include <string_view>

namespace lorry::data {
namespace {

/// Empty for what is no name.
std::string_view placeholder_name(std::string_view inside) {
  while (!inside.empty() && inside.front() == ' ') inside.remove_prefix(1);
  while (!inside.empty() && inside.back() == ' ') inside.remove_suffix(1);
  const bool word = std::all_of(inside.begin(), inside.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '-' || c == '.';
  });
  return word && !inside.empty() && !std::isdigit(static_cast<unsigned char>(inside[0]))
             ? inside
             : std::string_view();
}

}  // namespace

std::string fill_placeholders(std::string text, const NamedValues& known,
                              std::set<std::string>& unknown, std::set<std::string>& filled) {
  size_t open = text.find("{{");
  if (open == std::string::npos) return text;
  std::string out;
  size_t done = 0;
  for (; open != std::string::npos; open = text.find("{{", std::max(done, open + 1))) {
    const size_t close = text.find("}}", open);
    if (close == std::string::npos) break;
    const auto name = placeholder_name(std::string_view(text).substr(open + 2, close - open - 2));
    if (name.empty()) continue;
    const auto value = std::find_if(known.begin(), known.end(),
                                    [&](const auto& pair) { return pair.first == name; });
    if (value == known.end()) {
      unknown.emplace(name);
      continue;
    }
    filled.emplace(name);
    out.append(text, done, open - done).append(value->second);
    done = close + 2;
  }
  return out.append(text, done);
}

}  // namespace lorry::data

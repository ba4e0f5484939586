#include "hub/access.h"

#include <cstdlib>
#include <fstream>
#include <iterator>

namespace lorry::hub {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

/// Without white space at its ends: tokens are pasted.
std::string trim(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

std::string token_path() {
  if (const auto path = variable("HF_TOKEN_PATH"); !path.empty()) return path;
  if (const auto home = variable("HF_HOME"); !home.empty()) return home + "/token";
  if (const auto cache = variable("XDG_CACHE_HOME"); !cache.empty()) {
    return cache + "/huggingface/token";
  }
  const auto home = variable("HOME");
  return home.empty() ? "" : home + "/.cache/huggingface/token";
}

bool is_true(std::string text) {
  for (char& c : text) c = char(std::toupper(static_cast<unsigned char>(c)));
  return text == "1" || text == "ON" || text == "YES" || text == "TRUE";
}

}  // namespace

Access find_access() {
  Access access;
  if (auto endpoint = variable("HF_ENDPOINT"); !endpoint.empty()) {
    while (endpoint.ends_with('/')) endpoint.pop_back();
    access.endpoint = endpoint;
  }
  for (const char* name : {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}) {
    access.token = trim(variable(name));
    access.token_origin = name;
    if (!access.token.empty()) return access;
  }
  access.token_origin.clear();
  if (is_true(variable("HF_HUB_DISABLE_IMPLICIT_TOKEN"))) return access;
  const auto path = token_path();
  std::ifstream file(path, std::ios::binary);
  access.token = trim(std::string(std::istreambuf_iterator<char>(file), {}));
  if (!access.token.empty()) access.token_origin = path;
  return access;
}

}  // namespace lorry::hub

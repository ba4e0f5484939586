#include "hub/offline.h"

#include <fmt/format.h>
#include <strings.h>  // strcasecmp

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace lorry::hub {
namespace {

namespace fs = std::filesystem;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

/// The variable that says so; null: none.
const char* offline_variable() {
  for (const char* name : {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}) {
    const std::string value = variable(name);
    if (value.empty()) continue;
    for (const char* yes : {"1", "on", "yes", "true"}) {
      if (::strcasecmp(value.c_str(), yes) == 0) return name;
    }
    return nullptr;  // the first that is set decides
  }
  return nullptr;
}

std::string cache_directory() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const auto path = variable(name); !path.empty()) return path;
  }
  if (const auto home = variable("HF_HOME"); !home.empty()) return home + "/hub";
  if (const auto cache = variable("XDG_CACHE_HOME"); !cache.empty()) {
    return cache + "/huggingface/hub";
  }
  return variable("HOME") + "/.cache/huggingface/hub";
}

}  // namespace

bool is_offline() { return offline_variable() != nullptr; }

Error offline(RepoKind kind, const std::string& id) {
  const bool model = kind == RepoKind::kModel;
  const char* name = offline_variable();
  return usage_error(fmt::format(
      "{}={} keeps lorry from asking the Hub for {}{}; unset it, or name a directory with a copy. "
      "What is in the bucket already needs no source: lorry run with --dataset and --model alone",
      name, variable(name), id, model ? ", and its cache has no copy" : ""));
}

std::optional<Snapshot> cached_snapshot(RepoKind kind, const std::string& id,
                                        const std::string& revision) {
  std::string folder = kind == RepoKind::kModel ? "models--" : "datasets--";
  for (const char c : id) folder += c == '/' ? std::string("--") : std::string(1, c);
  const fs::path repo = fs::path(cache_directory()) / folder;
  const std::string asked = revision.empty() ? "main" : revision;
  std::string commit;
  std::ifstream(repo / "refs" / asked) >> commit;
  if (commit.empty()) commit = asked;
  const fs::path snapshot = repo / "snapshots" / commit;
  std::error_code error;
  if (commit.find('/') != std::string::npos || !fs::is_directory(snapshot, error)) {
    return std::nullopt;
  }
  return Snapshot{snapshot.string(), commit};
}

}  // namespace lorry::hub

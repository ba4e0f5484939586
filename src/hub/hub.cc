#include "hub/hub.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/version.h"
#include "hub/offline.h"

namespace lorry::hub {
namespace {

constexpr size_t kMaxSmallFile = 64 << 20;
constexpr int kMaxPages = 100'000;

const char* word(RepoKind kind) { return kind == RepoKind::kModel ? "model" : "data set"; }
const char* api_word(RepoKind kind) { return kind == RepoKind::kModel ? "models" : "datasets"; }
const char* url_prefix(RepoKind kind) { return kind == RepoKind::kModel ? "" : "datasets/"; }

std::string header(const net::Response& response, std::string_view name) {
  return std::string(response.header(name).value_or(""));
}

/// The target of `<...>; rel="next"` in a Link header; empty if there is none.
std::string next_page(const net::Response& response) {
  const std::string link = header(response, "Link");
  for (size_t at = 0; (at = link.find('<', at)) != std::string::npos;) {
    const size_t close = link.find('>', at);
    if (close == std::string::npos) return "";
    const size_t end = std::min(link.find('<', close), link.size());
    if (link.substr(close, end - close).find("rel=\"next\"") != std::string::npos) {
      return link.substr(at + 1, close - at - 1);
    }
    at = end;
  }
  return "";
}

/// A relative path with nothing in it that could lead elsewhere.
bool is_safe_path(const std::string& path) {
  if (path.empty() || path.front() == '/' || path.find('\0') != std::string::npos) return false;
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    const std::string part = path.substr(at, end - at);
    if (part.empty() || part == "." || part == "..") return false;
    at = end + 1;
  }
  return true;
}

Result<RepoFile> read_entry(const Json& entry, const std::string& what) {
  RepoFile file;
  file.path = entry.value("path", "");
  file.size = entry.value("size", int64_t(-1));
  file.oid = entry.value("oid", "");
  if (const auto lfs = entry.find("lfs"); lfs != entry.end() && lfs->is_object()) {
    file.sha256 = lfs->value("oid", "");
    file.size = lfs->value("size", file.size);
  }
  if (!is_safe_path(file.path) || file.size < 0) {
    return corrupt_data(fmt::format("{}: the Hub's list has an entry '{}' of {} bytes", what,
                                    file.path, file.size));
  }
  return file;
}

/// Adds the files of one page of a tree.
Result<> add_page(const std::string& body, const std::string& what, std::vector<RepoFile>& files) {
  LORRY_ASSIGN(const Json page, parse_json(body, what));
  if (!page.is_array()) return corrupt_data(fmt::format("{}: the Hub's list is no list", what));
  try {
    for (const auto& entry : page) {
      if (entry.value("type", "") != "file") continue;
      LORRY_ASSIGN(auto file, read_entry(entry, what));
      files.push_back(std::move(file));
    }
  } catch (const nlohmann::json::exception& error) {
    return corrupt_data(fmt::format("{}: the Hub's list: {}", what, error.what()));
  }
  return {};
}

}  // namespace

bool is_repo_id(const std::string& text) {
  const auto is_name = [](std::string_view name) {
    const auto ok = [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
    };
    return !name.empty() && name.size() <= 96 && std::all_of(name.begin(), name.end(), ok) &&
           name.front() != '.' && name.front() != '-' && name.back() != '.' && name.back() != '-';
  };
  const size_t slash = text.find('/');
  return slash != std::string::npos && is_name(std::string_view(text).substr(0, slash)) &&
         is_name(std::string_view(text).substr(slash + 1));
}

Hub::Hub(Access access, const net::Client& client) : access_(std::move(access)), client_(client) {}

net::Headers Hub::headers() const {
  net::Headers headers = {{"User-Agent", fmt::format("lorry/{}", kVersion)}};
  if (!access_.token.empty()) headers.emplace_back("Authorization", "Bearer " + access_.token);
  return headers;
}

std::string Hub::api_url(RepoKind kind, const std::string& id) const {
  return fmt::format("{}/api/{}/{}", access_.endpoint, api_word(kind), net::url_encode(id, "/"));
}

std::string Hub::page(RepoKind kind, const std::string& id) const {
  return fmt::format("{}/{}{}", access_.endpoint, url_prefix(kind), id);
}

std::string Hub::file_url(const Repo& repo, const std::string& path) const {
  return fmt::format("{}/{}{}/resolve/{}/{}", access_.endpoint, url_prefix(repo.kind),
                     net::url_encode(repo.id, "/"), repo.commit, net::url_encode(path, "/"));
}

std::string Hub::file_name(const Repo& repo, const std::string& path) {
  return fmt::format("hf://{}{}@{}/{}", url_prefix(repo.kind), repo.id, repo.commit, path);
}

Result<net::Response> Hub::get(const std::string& url, const std::string& what) const {
  net::Request request;
  request.url = url;
  request.headers = headers();
  request.what = what;
  // All that the API says is JSON: an answer that is none was cut on its way.
  request.retry_because = [](const net::Response& answer) -> std::optional<std::string> {
    if (!answer.ok() || Json::accept(answer.body)) return std::nullopt;
    return "the answer is cut short or no JSON (HF_ENDPOINT must be a Hub)";
  };
  auto response = client_.send(std::move(request));
  if (response.ok() || response.error().kind != ErrorKind::kUnavailable) return response;
  std::string message = response.error().message;
  if (message.find("429") != std::string::npos) {
    message +=
        access_.token.empty()
            ? "; the Hub limits requests: wait some minutes, or set HF_TOKEN to be allowed more"
            : "; the Hub limits requests: wait some minutes and run the same command again";
  }
  return unavailable(message);
}

Error Hub::explain(RepoKind kind, const std::string& id, const std::string& revision,
                   const net::Response& response) const {
  const std::string code = header(response, "X-Error-Code");
  std::string message = header(response, "X-Error-Message");
  const bool anonymous = access_.token.empty();
  if (code == "GatedRepo") {
    return invalid_input(fmt::format(
        "{} is gated: visit {}, accept its conditions, {}", id, page(kind, id),
        anonymous
            ? "and set HF_TOKEN to a token of that account"
            : fmt::format("and check that the token ({}) is of that account and may read gated "
                          "repositories",
                          access_.token_origin)));
  }
  if (response.status == 401 && !anonymous && code != "RepoNotFound") {
    return invalid_input(
        fmt::format("the Hub at {} refuses the token ({}); make a new one at "
                    "https://huggingface.co/settings/tokens, or unset it for public repositories",
                    access_.endpoint, access_.token_origin));
  }
  if (code == "RevisionNotFound") {
    return not_found(
        fmt::format("{} has no revision '{}'{}", id, revision, list_revisions(kind, id)));
  }
  if (message == "Access to this resource is disabled.") {
    return unavailable(fmt::format("{}: access to it has been disabled on the Hub", id));
  }
  if (code == "RepoNotFound" || response.status == 401 ||
      (response.status == 404 && code.empty())) {
    return not_found(fmt::format(
        "{}: no such {} on {}; check the spelling. {}", id, word(kind), access_.endpoint,
        anonymous ? "A private one needs HF_TOKEN"
                  : fmt::format("A private one needs a token that may read it (now: {})",
                                access_.token_origin)));
  }
  if (message.empty()) message = response.body.substr(0, 200);
  const auto text = fmt::format("{}: {} answers {}{}{}", id, access_.endpoint, response.status,
                                message.empty() ? "" : ": ", message);
  if (response.status == 404) return not_found(text);
  return response.status == 403 ? invalid_input(text) : unavailable(text);
}

/// "; it has: main, v1.0, refs/convert/parquet", or nothing if the Hub does not tell.
std::string Hub::list_revisions(RepoKind kind, const std::string& id) const {
  const auto response = get(api_url(kind, id) + "/refs", id);
  if (!response.ok() || !response->ok()) return "";
  const Json refs = Json::parse(response->body, nullptr, false);
  if (!refs.is_object()) return "";
  std::vector<std::string> names;
  for (const char* group : {"branches", "tags", "converts"}) {
    const Json list = refs.value(group, Json::array());
    if (!list.is_array()) continue;
    for (const auto& ref : list) {
      if (!ref.is_object()) continue;
      const std::string field = group == std::string_view("converts") ? "ref" : "name";
      const Json name = ref.value(field, Json());
      if (name.is_string()) names.push_back(name.get<std::string>());
      if (names.size() == 30) break;
    }
  }
  return names.empty() ? "" : fmt::format("; it has: {}", fmt::join(names, ", "));
}

Result<Repo> Hub::resolve(RepoKind kind, const std::string& id, const std::string& revision) const {
  if (is_offline()) return offline(kind, id);
  Repo repo{kind, id, revision.empty() ? "main" : revision, ""};
  const auto url = fmt::format("{}/revision/{}", api_url(kind, id), net::url_encode(repo.revision));
  LORRY_ASSIGN(const auto response, get(url, id));
  if (!response.ok()) return explain(kind, id, repo.revision, response);
  LORRY_ASSIGN(const Json info, parse_json(response.body, url));
  if (!info.is_object() || !info.contains("sha") || !info["sha"].is_string()) {
    return unavailable(
        fmt::format("{} does not answer as a Hub does; is HF_ENDPOINT right?", access_.endpoint));
  }
  repo.commit = info["sha"].get<std::string>();
  // A repository that was renamed answers under its new name.
  const Json name = info.value("id", Json());
  if (name.is_string() && is_repo_id(name.get<std::string>())) repo.id = name.get<std::string>();
  return repo;
}

Result<std::vector<RepoFile>> Hub::list(const Repo& repo) const {
  const std::string what = fmt::format("the files of {}", repo.id);
  std::string url =
      fmt::format("{}/tree/{}?recursive=True", api_url(repo.kind, repo.id), repo.commit);
  const std::string origin = net::url_origin(url);
  std::vector<RepoFile> files;
  for (int page = 0; !url.empty() && page < kMaxPages; ++page) {
    LORRY_ASSIGN(const auto response, get(url, what));
    if (!response.ok()) return explain(repo.kind, repo.id, repo.commit, response);
    LORRY_TRY(add_page(response.body, what, files));
    url = next_page(response);
    // The token goes to the Hub alone, and so do the pages.
    if (!url.empty() && net::url_origin(url) != origin) {
      const size_t path = url.find('/', url.find("://") + 3);
      url = origin + (path == std::string::npos ? "" : url.substr(path));
    }
  }
  std::sort(files.begin(), files.end(),
            [](const RepoFile& a, const RepoFile& b) { return a.path < b.path; });
  return files;
}

Result<std::optional<std::string>> Hub::read(const Repo& repo, const std::string& path) const {
  const std::string name = fmt::format("{} of {}", path, repo.id);
  std::string body;
  net::Request request;
  request.url = file_url(repo, path);
  request.headers = headers();
  request.what = name;
  request.on_head = [&](const net::Response&) -> Result<> {
    body.clear();
    return {};
  };
  request.on_data = [&](std::string_view piece) -> Result<> {
    if (body.size() + piece.size() > kMaxSmallFile) {
      return invalid_input(fmt::format("{} is larger than {} MB", name, kMaxSmallFile >> 20));
    }
    body += piece;
    return {};
  };
  LORRY_ASSIGN(const auto response, client_.send(std::move(request)));
  if (response.ok()) return std::optional<std::string>(std::move(body));
  if (header(response, "X-Error-Code") == "EntryNotFound") return std::optional<std::string>();
  return explain(repo.kind, repo.id, repo.commit, response);
}

}  // namespace lorry::hub

// Repositories of the Hugging Face Hub: what they hold at one commit, and their bytes.
//
// A revision is resolved once; whatever follows names the commit, so that a branch that moves in
// the middle of an import changes nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "hub/access.h"
#include "net/http.h"
#include "net/ranges.h"

namespace lorry::hub {

enum class RepoKind { kModel, kDataset };

/// "owner/name", by its characters alone.
bool is_repo_id(const std::string& text);

struct Repo {
  RepoKind kind = RepoKind::kModel;
  std::string id;        ///< as the Hub spells it
  std::string revision;  ///< as asked for
  std::string commit;    ///< 40 hex digits
};

struct RepoFile {
  std::string path;
  int64_t size = 0;
  std::string oid;     ///< git's id of the blob, of an LFS file its pointer's
  std::string sha256;  ///< of an LFS file's bytes; empty otherwise
};

/// Thread-safe. The errors of all functions say what to do: not found (repository, revision, file),
/// invalid input (gated, token refused), unavailable (no connection, rate limit).
class Hub {
 public:
  explicit Hub(Access access, const net::Client& client = net::Client::shared());

  const Access& access() const { return access_; }

  /// Looks the repository up and pins the revision (branch, tag, commit; empty: main).
  Result<Repo> resolve(RepoKind kind, const std::string& id, const std::string& revision) const;
  /// All files, by path. Entries that could not be files of a bucket ("..") are refused.
  Result<std::vector<RepoFile>> list(const Repo& repo) const;
  /// A small file whole (at most 64 MB); nullopt if there is no such file.
  Result<std::optional<std::string>> read(const Repo& repo, const std::string& path) const;
  /// A file for ranged reads; asks nothing yet. The place that the Hub redirects to is kept until
  /// it expires, so that a read is one request. Reads fail with corrupt data if the file is not as
  /// long as listed.
  std::shared_ptr<net::RangeSource> open(const Repo& repo, const RepoFile& file) const;

  /// The page of a repository, for people.
  std::string page(RepoKind kind, const std::string& id) const;
  /// Where a file's bytes are, by commit.
  std::string file_url(const Repo& repo, const std::string& path) const;
  /// "hf://datasets/owner/name@commit/path", for messages and info.json.
  static std::string file_name(const Repo& repo, const std::string& path);

  const net::Client& client() const { return client_; }
  /// What goes with requests to the endpoint, and to no other host.
  net::Headers headers() const;
  /// The sentence for an answer that is not a success.
  Error explain(RepoKind kind, const std::string& id, const std::string& revision,
                const net::Response& response) const;

 private:
  std::string api_url(RepoKind kind, const std::string& id) const;
  Result<net::Response> get(const std::string& url, const std::string& what) const;
  std::string list_revisions(RepoKind kind, const std::string& id) const;

  Access access_;
  const net::Client& client_;
};

}  // namespace lorry::hub

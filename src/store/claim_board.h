// What the claims of a bucket (claim.h) say, and which of them live.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>  // tie
#include <vector>

#include "base/result.h"
#include "store/bucket.h"
#include "store/claim.h"
#include "store/claim_process.h"
#include "store/layout.h"

namespace lorry::store {

inline constexpr double kDefaultClaimSeconds = 75;

/// What a claim's object says.
struct ClaimRecord {
  std::string id;
  ProcessId process;
  Work work;
  bool held = false;
  int64_t since_ms = 0;
  double seconds = kDefaultClaimSeconds;
  std::vector<std::string> took;  ///< ids of the dead claims whose work this one takes over

  std::string path() const { return join_path(claims_dir(), id + ".json"); }
  bool comes_before(const ClaimRecord& other) const {
    return std::tie(since_ms, id) < std::tie(other.since_ms, other.id);
  }
};

/// The bytes of the object.
std::string to_text(const ClaimRecord& record);

/// Nodes of one piece of work.
bool same_work(const Work& a, const Work& b);
/// One writes what the other writes or reads, and they are not nodes of one piece of work.
bool in_conflict(const Work& a, const Work& b);

/// A claim as a list showed it.
struct SeenClaim {
  ClaimRecord record;
  double age = 0;     ///< seconds
  bool gone = false;  ///< its process does not exist any more
  bool dead = false;
};

/// Reads all claims of a bucket, again and again. What it knows of earlier looks spares requests
/// and tells how long a claim has not changed. Not thread-safe.
class ClaimBoard {
 public:
  explicit ClaimBoard(const Bucket& bucket) : bucket_(bucket) {}

  /// `mine`: id of the caller's claim, whose time of writing counts as now, so that no two clocks
  /// are compared; empty: the local clock is used.
  Result<std::vector<SeenClaim>> look(const std::string& mine);

 private:
  struct Known {
    std::string etag;
    int64_t modified_ms = 0;
    double first_seen = 0;  ///< with this etag and time
    std::optional<ClaimRecord> record;
  };

  Result<std::optional<Known>> known_of(const std::string& id, const ObjectInfo& object) const;
  SeenClaim judge(const Known& known, const ObjectInfo& object, int64_t now) const;

  const Bucket& bucket_;
  std::map<std::string, Known> known_;
};

/// For people and for `Claim`'s callers.
Claimant claimant_of(const SeenClaim& seen);

/// By the local clock, in milliseconds since 1970.
int64_t now_ms();

}  // namespace lorry::store

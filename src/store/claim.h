// Claims: how processes that share a bucket keep out of each other's way. docs/bucket.md tells what
// users see of them.
//
// A process that will write a directory says so in an object of its own, claims/{id}.json: what it
// writes, what it reads, who it is. Two claims conflict when one writes what the other writes or
// reads, unless both are nodes of one piece of work (same key and world size, other rank). The
// protocol needs no more of a store than that a list shows what was written before it was asked
// for, which S3, Google's, Azure's and directories all give:
//
//   - Whoever wants to work raises its flag (writes its claim, state "held"), then lists. No living
//     claim in conflict: it works. Else it lowers its flag (state "waiting") and waits. Of two who
//     raise theirs at the same time at least one sees the other's, because each lists after it
//     wrote; so two never both go on. Both may step back: then the earlier one (`since`, `id`)
//     tries first, and those who came later leave it the way.
//   - A holder writes its claim anew every fifth of `seconds` (75, LORRY_CLAIM_SECONDS). One that
//     was not written for longer is dead. The age is told by the store's own clock (the claim's
//     time against that of the claim that the judge has just written itself), in a directory by how
//     long the judge saw no change; never by comparing the clocks of two machines. A claim of this
//     machine whose process is gone (boot id, pid namespace, pid, start time) is dead at once.
//   - Whoever goes on over a dead claim first names it in its own (`took`), lists again, and if it
//     is dead still, removes it. A process that was only asleep looks before its next write: its
//     claim is gone, or someone's `took` names it, and it stops. If nobody took over, it goes on.
//
// A holder writes through Claim::bucket(), in which nothing becomes visible unless the last sign of
// life is younger than the claim's life, or was just given again. What remains: a process that is
// stopped between that look and the one request that follows it, for longer than `seconds`, while
// another takes over with other options, lets that one request through when it wakes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "store/bucket.h"

namespace lorry::store {

/// What a process is going to do.
struct Work {
  std::string writes;              ///< the output's directory: "standardized/talk"
  std::vector<std::string> reads;  ///< directories that must stay as they are meanwhile
  std::string verb;                ///< "standardize"
  std::string key;                 ///< digest of all that decides the output
  int64_t rank = 0, world_size = 1;
};

/// A process that is at work, or waits for it.
struct Claimant {
  std::string id;
  Work work;
  bool held = false;  ///< false: it waits
  std::string host;
  int64_t pid = 0;
  std::string since;  ///< when it asked first, by its own clock: "2026-11-22 21:52:15"
  double age = 0;     ///< seconds since it was last heard of
  bool dead = false;
};

/// "host-1 (process 12, lorry standardize), since 2026-11-22 21:52:15 UTC, last seen 4 s ago".
std::string describe(const Claimant& claimant);
/// {host, pid, verb, writes, reads, since, last_seen_seconds, state, rank, world_size}.
Json to_json(const Claimant& claimant);

/// The living, by `since`. Ages are told by this machine's clock, so they are for people only.
Result<std::vector<Claimant>> list_claimants(const Bucket& bucket);

/// The right to write a directory, held until destroyed. A thread keeps it alive. Thread-safe.
class Claim {
 public:
  /// Waits while others hold what is in conflict, telling on stderr for whom; without `wait` fails
  /// with unavailable, which says the same. Cancelled by a signal. Fails with the store's error if
  /// claims/ cannot be written. A claim costs two requests, and one at the end.
  static Result<std::unique_ptr<Claim>> take(std::shared_ptr<Bucket> bucket, Work work, bool wait);
  ~Claim();
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;

  /// The bucket to write to: each write is checked first.
  const std::shared_ptr<Bucket>& bucket() const;
  /// Gives a sign of life and asks the bucket whether the claim is still this process's;
  /// unavailable if it is not, or if that cannot be told. For the writes that complete an output:
  /// for all others `bucket` asks by itself where the last sign is old.
  Result<> confirm();

  /// The other nodes of the same work, living or dead.
  Result<std::vector<Claimant>> crew();
  /// Removes the claim of a dead one, so that it writes no more if it was only asleep. False: it
  /// has just woken.
  Result<bool> dismiss(const Claimant& dead);

 private:
  struct Impl;
  explicit Claim(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;  ///< the guard of `bucket` looks at it as long as it lives
};

}  // namespace lorry::store

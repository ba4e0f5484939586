// Nodes that share the shards of a stage: for whom to wait, and whose shards to take up.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "store/claim.h"

namespace lorry::stages {

/// How a process stands to others on the same bucket.
struct NodeOptions {
  int64_t rank = 0, world_size = 1;  ///< this process and how many share the work
  /// Wait for whoever is at work on the same output, and for the other nodes' shards; false: fail
  /// at once, and leave the stage to the node that comes last.
  bool wait = true;
  /// Seconds until a node that has never shown itself counts as lost. Its shards are made by others
  /// then, and if it comes after all, it finds them done.
  int64_t node_seconds = 180;
};

/// A node that gives no sign of life any more, or none for NodeOptions::node_seconds since this
/// object was made, is gone. Not thread-safe.
class OtherNodes {
 public:
  /// `dir`: the output, for messages. The claim outlives this object.
  OtherNodes(const NodeOptions& options, store::Claim& claim, std::string dir);

  /// Of shards that are not done, those that this process is to make now: its own, and its part of
  /// those of nodes that are gone. None: the others are at it; a moment has passed. Cancelled by a
  /// signal.
  Result<std::vector<int64_t>> take_up(const std::vector<int64_t>& missing);

 private:
  struct Crew {
    std::set<int64_t> living;
    std::vector<store::Claimant> dead;
  };
  Result<Crew> look();
  bool is_gone(int64_t rank, const Crew& crew) const;
  void say_waiting(const std::vector<int64_t>& missing);
  Result<> pause() const;

  const NodeOptions options_;
  store::Claim& claim_;
  const std::string dir_;
  double begin_, last_said_ = 0;
  std::set<int64_t> seen_;  ///< ranks that have shown themselves
  std::set<int64_t> told_;  ///< ranks of which it was said that they are gone
};

}  // namespace lorry::stages

// The frame of a stage that makes shard i of shard i: what is done stays, what is missing is made,
// by one process or by many on the same bucket.
//
// A shard is done when its state.json carries the key of this work (a digest of all that decides
// the shard); nothing else is trusted. A process makes the shards that are its own
// (shard % world_size == rank), then waits for the other nodes and takes up what dead or absent
// ones have left (other_nodes.h); who finds all whole writes info.json. Bytes depend on the inputs
// alone, so it does not matter who makes what, or how often. A stage holds a claim on its output
// from before its first write on (store/claim.h), and writes through the claim's bucket.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "data/shard.h"
#include "stages/ledger.h"
#include "stages/other_nodes.h"
#include "store/bucket.h"
#include "store/claim.h"

namespace lorry::stages {

/// Options that all such stages have.
struct ShardWorkOptions : NodeOptions {
  int64_t skip_bad_rows = 0;   ///< malformed rows to leave out before giving up
  DropLimit max_dropped;       ///< rows left out for any reason
  bool fresh = false;          ///< again, even if nothing changed
  int64_t memory = 512 << 20;  ///< bytes that the stage may hold
  int threads = 0;             ///< 0 takes the machine's
};

/// Fails with wrong usage if rank and world size do not go together.
Result<> check(const ShardWorkOptions& options);
/// `options.threads`, or the machine's.
int worker_threads(const ShardWorkOptions& options);

/// The digest by which a stage knows its input again: of the info.json that it read.
std::string digest_of_info(const Json& info);

/// A claim for a stage on what it writes. `key`: digest of all that decides the output.
Result<std::unique_ptr<store::Claim>> claim_output(const ShardWorkOptions& options,
                                                   std::shared_ptr<store::Bucket> bucket,
                                                   std::string verb, std::string writes,
                                                   std::vector<std::string> reads, std::string key);

/// Says how much the stage may hold.
void log_memory(const char* stage, const ShardWorkOptions& options);

/// Whether a shard is done: `state`, as data::read_shard_state gives it, carries `key`.
bool has_key(const std::optional<Json>& state, const std::string& key);

/// Reads the state.json of shards [0, shards) under `dir`, many at a time, and hands on what
/// data::read_shard_state gives of each, in order.
Result<> read_states(const store::Bucket& bucket, const std::string& dir, int64_t shards,
                     const std::function<Result<>(int64_t shard, std::optional<Json> state)>& use);

/// Not thread-safe.
class ShardWork {
 public:
  /// `dir`: where the shards go. `inputs`: digest of all that decides them. `rows`: to be read in
  /// all. The claim outlives this object.
  ShardWork(const ShardWorkOptions& options, store::Claim& claim, std::string dir,
            std::string inputs, int64_t shards, int64_t rows);

  using UseState = std::function<Result<>(int64_t shard, const Json& state)>;

  /// Takes away the info.json of other inputs, and with `fresh` this process's shards; hands on the
  /// states of shards that are done.
  Result<> begin(const UseState& done);
  /// The next shard that is this process's to make; nullopt after the last. With other nodes (and
  /// `wait`) it comes back from there only when all shards are done, and hands out those of nodes
  /// that are gone.
  Result<std::optional<int64_t>> next();

  using Accept = std::function<bool(const Json& state)>;
  /// Makes shards a second time: from here on one is done only if `accept` says so, too.
  void again(const std::vector<int64_t>& shards, Accept accept);

  /// Leaves a malformed row out of a shard that is being made, and fails, naming it, when it is one
  /// too many.
  Result<> refuse(Ledger& shard, Ledger::Named row);
  /// What a finished shard's state.json must say, besides the stage's own fields.
  Json state(int64_t shard, const Ledger& ledger) const;
  /// Finishes a shard while the next one is being made: the disk need not wait for the processor.
  /// Its error comes from the next call, or from `collect`. Fails when more rows were left out than
  /// the limit allows of all.
  Result<> finish_shard(std::unique_ptr<data::ShardWriter> writer, const Ledger& shard);

  /// Counts the rows of a shard that was made elsewhere; fails as `finish_shard` does.
  Result<> count_shard(const Ledger& shard);

  /// Reads the states of all shards again. Returns those that are not done; `use` sees the others.
  Result<std::vector<int64_t>> collect(const UseState& use);
  /// The sum of the shards that `collect` saw.
  const Ledger& ledger() const { return collected_; }

  /// After `collect` found every shard: checks the limits, removes shards beyond the last, writes
  /// ledger.jsonl and at last info.json (`info` and the ledger's counts). Gives its digest_of_info.
  Result<std::string> finish(Json info);

  int64_t rows_done() const { return counted_.read(); }  ///< of shards that are done

 private:
  std::string shard_dir(int64_t shard) const;
  std::string key(int64_t shard) const;
  bool is_done(int64_t shard, const std::optional<Json>& state) const;
  bool waits() const { return options_.wait && options_.world_size > 1; }
  Result<> forget_info();
  Result<> look_at_missing();
  bool is_mine(int64_t shard) const { return shard % options_.world_size == options_.rank; }
  Error too_many_bad(const Ledger::Named& row) const;
  Result<> forget_mine();
  Result<> settle();

  const ShardWorkOptions options_;
  store::Claim& claim_;
  const std::shared_ptr<store::Bucket> bucket_;  ///< the claim's
  const std::string dir_, inputs_;
  const int64_t shards_, rows_;
  std::vector<int64_t> todo_;
  size_t next_ = 0;
  std::vector<int64_t> missing_;  ///< not done when last looked at
  Accept accept_;
  OtherNodes others_;
  Ledger counted_, collected_;
  int64_t warned_ = 0;
  std::unique_ptr<data::ShardWriter> writer_;  ///< of the shard that is being finished
  std::future<Result<>> finished_;             ///< waits where it is destroyed, before the writer
};

/// Whether a finished stage, as its info.json has it, is within the limits asked for now.
Result<> check_finished(const ShardWorkOptions& options, const std::string& dir, const Json& info);

/// "3 of 8 shards are other nodes' work and not there yet; ..." for reports.
std::string describe_missing(int64_t missing, int64_t shards);

}  // namespace lorry::stages

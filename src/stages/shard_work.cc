#include "stages/shard_work.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <thread>  // hardware_concurrency

#include "base/cancel.h"
#include "base/digest.h"
#include "base/log.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "data/standard_batch.h"  // kMalformed
#include "store/layout.h"

namespace lorry::stages {
namespace {

/// States that are read before they are handed on: bounds what is held of them.
constexpr int64_t kStatesAtOnce = 512;
constexpr int64_t kLocalReaders = 4, kRemoteReaders = 32;
/// Malformed rows that are warned of; the others are in the ledger.
constexpr int64_t kWarnings = 20;

int64_t readers(const store::Bucket& bucket) {
  return bucket.is_local() ? kLocalReaders : kRemoteReaders;
}

}  // namespace

Result<> check(const ShardWorkOptions& options) {
  if (options.world_size < 1 || options.rank < 0 || options.rank >= options.world_size) {
    return usage_error(
        fmt::format("--rank {} --world-size {}: ranks are counted from 0 to world size - 1",
                    options.rank, options.world_size));
  }
  return {};
}

int worker_threads(const ShardWorkOptions& options) {
  return options.threads > 0 ? options.threads
                             : int(std::max(1u, std::thread::hardware_concurrency()));
}

void log_memory(const char* stage, const ShardWorkOptions& options) {
  log::info("{}: memory at most {} MB", stage, options.memory >> 20);
}

bool has_key(const std::optional<Json>& state, const std::string& key) {
  return state && state->value("key", "") == key;
}

Result<> read_states(const store::Bucket& bucket, const std::string& dir, int64_t shards,
                     const std::function<Result<>(int64_t, std::optional<Json>)>& use) {
  for (int64_t first = 0; first < shards; first += kStatesAtOnce) {
    LORRY_TRY(check_cancelled());
    const int64_t n = std::min(kStatesAtOnce, shards - first);
    std::vector<std::optional<Json>> states(static_cast<size_t>(n));
    LORRY_TRY(in_parallel(n, readers(bucket), [&](int64_t i) -> Result<> {
      const std::string shard = store::shard_dir(dir, first + i);
      LORRY_ASSIGN(states[size_t(i)], data::read_shard_state(bucket, shard));
      return {};
    }));
    for (int64_t i = 0; i < n; ++i) LORRY_TRY(use(first + i, std::move(states[size_t(i)])));
  }
  return {};
}

std::string digest_of_info(const Json& info) { return sha256_hex(dump_json(info)); }

Result<std::unique_ptr<store::Claim>> claim_output(const ShardWorkOptions& options,
                                                   std::shared_ptr<store::Bucket> bucket,
                                                   std::string verb, std::string writes,
                                                   std::vector<std::string> reads,
                                                   std::string key) {
  store::Work work{std::move(writes), std::move(reads), std::move(verb),
                   std::move(key),    options.rank,     options.world_size};
  return store::Claim::take(std::move(bucket), std::move(work), options.wait);
}

ShardWork::ShardWork(const ShardWorkOptions& options, store::Claim& claim, std::string dir,
                     std::string inputs, int64_t shards, int64_t rows)
    : options_(options),
      claim_(claim),
      bucket_(claim.bucket()),
      dir_(std::move(dir)),
      inputs_(std::move(inputs)),
      shards_(shards),
      rows_(rows),
      others_(options, claim, dir_) {}

std::string ShardWork::shard_dir(int64_t shard) const { return store::shard_dir(dir_, shard); }

std::string ShardWork::key(int64_t shard) const {
  return sha256_hex(fmt::format("{} {}", inputs_, shard));
}

Result<> ShardWork::begin(const UseState& done) {
  LORRY_TRY(forget_info());
  if (options_.fresh) LORRY_TRY(forget_mine());
  int64_t found = 0;
  LORRY_TRY(read_states(*bucket_, dir_, shards_,
                        [&](int64_t shard, std::optional<Json> state) -> Result<> {
                          if (!has_key(state, key(shard))) {
                            (is_mine(shard) ? todo_ : missing_).push_back(shard);
                            return {};
                          }
                          ++found;
                          counted_.add(Ledger::from_json(state->value("ledger", Json())));
                          return done(shard, *state);
                        }));
  if (found > 0) log::info("{}: going on, {} of {} shards are there", dir_, found, shards_);
  return {};
}

/// One of the same inputs is of a node that has found all shards whole since this one looked.
Result<> ShardWork::forget_info() {
  const auto info = bucket_->read_info(dir_);
  if (info.ok() && *info && !options_.fresh) {
    const Json inputs = (*info)->value("inputs", Json());
    if (inputs == Json(inputs_) || sha256_hex(dump_json(inputs)) == inputs_) return {};
  }
  return bucket_->remove(store::join_path(dir_, "info.json"));
}

/// A shard without a state.json is not done, whatever else lies there.
Result<> ShardWork::forget_mine() {
  return in_parallel(shards_, readers(*bucket_), [&](int64_t shard) -> Result<> {
    if (!is_mine(shard)) return {};
    return bucket_->remove(store::join_path(shard_dir(shard), "state.json"));
  });
}

bool ShardWork::is_done(int64_t shard, const std::optional<Json>& state) const {
  return has_key(state, key(shard)) && (!accept_ || accept_(*state));
}

Result<std::optional<int64_t>> ShardWork::next() {
  while (true) {
    while (next_ < todo_.size()) {
      LORRY_TRY(check_cancelled());
      const int64_t shard = todo_[next_++];
      // Another process with the same work may have been here meanwhile.
      LORRY_ASSIGN(const auto state, data::read_shard_state(*bucket_, shard_dir(shard)));
      if (!is_done(shard, state)) return std::optional<int64_t>(shard);
      counted_.add(Ledger::from_json(state->value("ledger", Json())));
    }
    if (!waits()) return std::optional<int64_t>();
    LORRY_TRY(settle());
    LORRY_TRY(look_at_missing());
    if (missing_.empty()) return std::optional<int64_t>();
    LORRY_ASSIGN(todo_, others_.take_up(missing_));
    next_ = 0;
  }
}

Result<> ShardWork::look_at_missing() {
  std::vector<char> done(missing_.size());
  LORRY_TRY(in_parallel(int64_t(missing_.size()), readers(*bucket_), [&](int64_t i) -> Result<> {
    const int64_t shard = missing_[size_t(i)];
    LORRY_ASSIGN(const auto state, data::read_shard_state(*bucket_, shard_dir(shard)));
    done[size_t(i)] = is_done(shard, state);
    return {};
  }));
  size_t i = 0;
  std::erase_if(missing_, [&](int64_t) { return done[i++] != 0; });
  return {};
}

void ShardWork::again(const std::vector<int64_t>& shards, Accept accept) {
  counted_ = Ledger();
  accept_ = std::move(accept);
  todo_.clear();
  missing_.clear();
  next_ = 0;
  for (const int64_t shard : shards) {
    (is_mine(shard) || !waits() ? todo_ : missing_).push_back(shard);
  }
}

Error ShardWork::too_many_bad(const Ledger::Named& row) const {
  const std::string allowed =
      options_.skip_bad_rows == 0
          ? "--skip-bad-rows N leaves out up to N such rows"
          : fmt::format("that is one more than --skip-bad-rows {}", options_.skip_bad_rows);
  return invalid_input(fmt::format("{} row {}: {}; {}", row.place, row.row, row.detail, allowed));
}

Result<> ShardWork::refuse(Ledger& shard, Ledger::Named row) {
  const int64_t before = counted_.dropped(data::kMalformed) + shard.dropped(data::kMalformed);
  if (before >= options_.skip_bad_rows) return too_many_bad(row);
  if (warned_++ < kWarnings) {
    log::warn("left out: {} row {}: {}", row.place, row.row, row.detail);
  } else if (warned_ == kWarnings + 1) {
    log::warn("more such rows are in {}/ledger.jsonl at the end", dir_);
  }
  shard.drop(data::kMalformed, std::move(row));
  return {};
}

Json ShardWork::state(int64_t shard, const Ledger& ledger) const {
  return Json{{"key", key(shard)}, {"ledger", ledger.to_json()}};
}

Result<> ShardWork::finish_shard(std::unique_ptr<data::ShardWriter> writer, const Ledger& shard) {
  LORRY_TRY(settle());
  writer_ = std::move(writer);
  finished_ = std::async(std::launch::async, [this] { return writer_->finish(); });
  return count_shard(shard);
}

Result<> ShardWork::count_shard(const Ledger& shard) {
  counted_.add(shard);
  return counted_.check(options_.max_dropped, dir_, std::max(rows_, counted_.read()));
}

Result<> ShardWork::settle() {
  if (!finished_.valid()) return {};
  auto result = finished_.get();
  writer_.reset();
  return result;
}

Result<std::vector<int64_t>> ShardWork::collect(const UseState& use) {
  LORRY_TRY(settle());
  std::vector<int64_t> missing;
  collected_ = Ledger();
  LORRY_TRY(read_states(*bucket_, dir_, shards_,
                        [&](int64_t shard, std::optional<Json> state) -> Result<> {
                          if (!has_key(state, key(shard))) {
                            missing.push_back(shard);
                            return {};
                          }
                          collected_.add(Ledger::from_json(state->value("ledger", Json())));
                          return use(shard, *state);
                        }));
  return missing;
}

Result<std::string> ShardWork::finish(Json info) {
  LORRY_TRY(collected_.check(options_.max_dropped, dir_, collected_.read()));
  LORRY_TRY(check_finished(options_, dir_, Json{{"ledger", collected_.summary()}}));
  LORRY_TRY(data::remove_shards(*bucket_, dir_, shards_));
  LORRY_TRY(collected_.write(*bucket_, dir_));
  info["ledger"] = collected_.summary();
  LORRY_TRY(claim_.confirm());
  LORRY_TRY(bucket_->write_info(dir_, info));
  return digest_of_info(info);
}

Result<> check_finished(const ShardWorkOptions& options, const std::string& dir, const Json& info) {
  const Json ledger = info.value("ledger", Json::object());
  const Json dropped = ledger.value("dropped", Json::object());
  int64_t all = 0;
  for (const auto& [reason, rows] : dropped.items()) all += rows.get<int64_t>();
  const int64_t bad = dropped.value(data::kMalformed, int64_t{0});
  if (bad > options.skip_bad_rows) {
    return invalid_input(fmt::format(
        "{}: {} malformed rows were left out, more than --skip-bad-rows {}; {}/ledger.jsonl names "
        "them",
        dir, format_count(bad), options.skip_bad_rows, dir));
  }
  const int64_t read = ledger.value("read", int64_t{0});
  if (options.max_dropped.is_set() && all > options.max_dropped.rows(read)) {
    return invalid_input(fmt::format(
        "{}: {} of {} rows were left out ({}), more than --max-dropped {}; {}/ledger.jsonl names "
        "them",
        dir, format_count(all), format_count(read), dump_json(dropped), options.max_dropped.text(),
        dir));
  }
  return {};
}

std::string describe_missing(int64_t missing, int64_t shards) {
  return fmt::format(
      "{} of {} shards are other nodes' work and not there yet; the node that comes last completes "
      "the stage, or run again with --wait to wait for them, with --world-size 1 to take them up",
      missing, shards);
}

}  // namespace lorry::stages

#include "stages/other_nodes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <thread>

#include "base/cancel.h"
#include "base/log.h"

namespace lorry::stages {
namespace {

constexpr double kLocalLook = 0.2, kRemoteLook = 2;  // seconds between looks
constexpr double kQuiet = 3, kSecondsBetweenLines = 60;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

OtherNodes::OtherNodes(const NodeOptions& options, store::Claim& claim, std::string dir)
    : options_(options), claim_(claim), dir_(std::move(dir)), begin_(now()) {}

Result<OtherNodes::Crew> OtherNodes::look() {
  LORRY_ASSIGN(auto claimants, claim_.crew());
  Crew crew;
  crew.living.insert(options_.rank);
  for (auto& claimant : claimants) {
    seen_.insert(claimant.work.rank);
    if (claimant.dead) {
      crew.dead.push_back(std::move(claimant));
    } else {
      crew.living.insert(claimant.work.rank);
    }
  }
  return crew;
}

bool OtherNodes::is_gone(int64_t rank, const Crew& crew) const {
  if (crew.living.contains(rank)) return false;
  return seen_.contains(rank) || now() - begin_ > double(options_.node_seconds);
}

Result<std::vector<int64_t>> OtherNodes::take_up(const std::vector<int64_t>& missing) {
  LORRY_ASSIGN(Crew crew, look());
  // One that was only asleep must not write over what others make in its stead.
  for (const auto& dead : crew.dead) {
    LORRY_ASSIGN(const bool dismissed, claim_.dismiss(dead));
    if (!dismissed) crew.living.insert(dead.work.rank);
  }
  std::vector<int64_t> mine;
  size_t left = 0;  // shards that nobody makes, dealt out among the living
  const std::vector<int64_t> living(crew.living.begin(), crew.living.end());
  for (const int64_t shard : missing) {
    const int64_t rank = shard % options_.world_size;
    if (rank == options_.rank) {
      mine.push_back(shard);
    } else if (is_gone(rank, crew)) {
      if (told_.insert(rank).second) {
        log::warn("{}: node {} is {}; its shards are made by the others", dir_, rank,
                  seen_.contains(rank) ? "gone" : "not there");
      }
      if (living[left++ % living.size()] == options_.rank) mine.push_back(shard);
    }
  }
  if (!mine.empty()) return mine;
  say_waiting(missing);
  LORRY_TRY(pause());
  return mine;
}

void OtherNodes::say_waiting(const std::vector<int64_t>& missing) {
  if (now() - begin_ < kQuiet || now() - last_said_ < kSecondsBetweenLines) return;
  last_said_ = now();
  std::set<int64_t> ranks;
  for (const int64_t shard : missing) ranks.insert(shard % options_.world_size);
  log::info("{}: waiting for {} shard{} of node{} {}", dir_, missing.size(),
            missing.size() == 1 ? "" : "s", ranks.size() == 1 ? "" : "s", fmt::join(ranks, ", "));
}

Result<> OtherNodes::pause() const {
  const double end = now() + (claim_.bucket()->is_local() ? kLocalLook : kRemoteLook);
  while (now() < end) {
    LORRY_TRY(check_cancelled());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return {};
}

}  // namespace lorry::stages

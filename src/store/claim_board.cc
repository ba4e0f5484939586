#include "store/claim_board.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/version.h"

namespace lorry::store {
namespace {

using std::chrono::milliseconds;

/// Stores that tell time in whole seconds make two times up to a second more apart.
constexpr double kClockGrain = 1;

std::string utc(int64_t ms) {
  const time_t seconds = time_t(ms / 1000);
  tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &parts);
  return text;
}

/// nullopt for what is no claim of a version that this program knows.
std::optional<ClaimRecord> from_text(const std::string& id, const std::string& text) {
  auto json = parse_json(text, id);
  if (!json.ok() || !json->is_object()) return std::nullopt;
  try {
    ClaimRecord r;
    r.id = id;
    r.held = json->at("state") == "held";
    r.work.verb = json->at("verb");
    r.work.writes = json->at("writes");
    r.work.reads = json->at("reads").get<std::vector<std::string>>();
    r.work.key = json->at("key");
    r.work.rank = json->at("rank");
    r.work.world_size = json->at("world_size");
    r.process.host = json->at("host");
    r.process.pid = json->at("pid");
    r.process.machine = json->at("machine");
    r.process.start = json->at("start");
    r.since_ms = json->at("since_ms");
    r.seconds = json->at("seconds");
    r.took = json->at("took").get<std::vector<std::string>>();
    return r;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

std::string id_of(const ObjectInfo& object) {
  const std::string name = object.path.substr(object.path.rfind('/') + 1);
  if (!name.ends_with(".json")) return {};
  return name.substr(0, name.size() - 5);
}

}  // namespace

int64_t now_ms() {
  return std::chrono::duration_cast<milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string to_text(const ClaimRecord& r) {
  const Json json{{"format", 1},
                  {"state", r.held ? "held" : "waiting"},
                  {"verb", r.work.verb},
                  {"writes", r.work.writes},
                  {"reads", r.work.reads},
                  {"key", r.work.key},
                  {"rank", r.work.rank},
                  {"world_size", r.work.world_size},
                  {"host", r.process.host},
                  {"pid", r.process.pid},
                  {"machine", r.process.machine},
                  {"start", r.process.start},
                  {"since", utc(r.since_ms)},
                  {"since_ms", r.since_ms},
                  {"seconds", r.seconds},
                  {"took", r.took},
                  {"lorry_version", kVersion}};
  return dump_json(json, 1) + "\n";
}

bool same_work(const Work& a, const Work& b) {
  return a.writes == b.writes && a.key == b.key && a.world_size == b.world_size;
}

bool in_conflict(const Work& a, const Work& b) {
  const auto reads = [](const Work& work, const std::string& dir) {
    return std::find(work.reads.begin(), work.reads.end(), dir) != work.reads.end();
  };
  if (reads(a, b.writes) || reads(b, a.writes)) return true;
  return a.writes == b.writes && !(same_work(a, b) && a.rank != b.rank);
}

Result<std::vector<SeenClaim>> ClaimBoard::look(const std::string& mine) {
  LORRY_ASSIGN(const auto objects, bucket_.list(claims_dir()));
  int64_t now = mine.empty() ? now_ms() : 0;
  for (const auto& object : objects) {
    if (id_of(object) == mine) now = object.modified_ms;
  }
  std::vector<SeenClaim> all;
  std::map<std::string, Known> known;
  for (const auto& object : objects) {
    const std::string id = id_of(object);
    if (object.is_directory || id.empty()) continue;
    LORRY_ASSIGN(auto entry, known_of(id, object));
    if (!entry) continue;  // gone since the list
    if (entry->record) all.push_back(judge(*entry, object, now));
    known.emplace(id, std::move(*entry));
  }
  known_ = std::move(known);
  return all;
}

Result<std::optional<ClaimBoard::Known>> ClaimBoard::known_of(const std::string& id,
                                                              const ObjectInfo& object) const {
  Known known{object.etag, object.modified_ms, seconds_since_boot(), std::nullopt};
  const auto before = known_.find(id);
  if (before != known_.end() && before->second.etag == object.etag) {
    const bool unchanged = before->second.modified_ms == object.modified_ms;
    known.record = before->second.record;
    if (unchanged) known.first_seen = before->second.first_seen;
    return std::optional(std::move(known));
  }
  auto text = bucket_.read(object.path);
  if (!text.ok()) {
    if (text.error().kind == ErrorKind::kNotFound) return std::optional<Known>();
    return std::move(text).error();
  }
  known.record = from_text(id, *text);
  return std::optional(std::move(known));
}

SeenClaim ClaimBoard::judge(const Known& known, const ObjectInfo& object, int64_t now) const {
  SeenClaim seen{*known.record};
  const double watched = seconds_since_boot() - known.first_seen;
  const double told = std::max<double>(0, double(now - object.modified_ms) / 1000);
  // In a directory the times of files may be those of the machines that mounted it.
  const bool by_clock = !bucket_.is_local() && now > 0 && object.modified_ms > 0;
  seen.age = now > 0 && object.modified_ms > 0 ? told : watched;
  seen.gone = is_gone(seen.record.process);
  seen.dead = seen.gone || watched > seen.record.seconds ||
              (by_clock && told > seen.record.seconds + kClockGrain);
  return seen;
}

Claimant claimant_of(const SeenClaim& seen) {
  const ClaimRecord& r = seen.record;
  return {r.id,          r.work,          r.held,   r.process.host,
          r.process.pid, utc(r.since_ms), seen.age, seen.dead};
}

std::string describe(const Claimant& claimant) {
  const Work& work = claimant.work;
  const std::string node = work.world_size > 1
                               ? fmt::format(", node {} of {}", work.rank, work.world_size)
                               : std::string();
  const char* what = claimant.held ? "at work on" : "which waits itself for";
  return fmt::format("{} (process {}, lorry {}{}), {} {} since {} UTC, last seen {:.0f} s ago",
                     claimant.host, claimant.pid, work.verb, node, what, work.writes,
                     claimant.since, claimant.age);
}

Json to_json(const Claimant& claimant) {
  const Work& work = claimant.work;
  return {{"writes", work.writes},
          {"verb", work.verb},
          {"state", claimant.held ? "held" : "waiting"},
          {"host", claimant.host},
          {"pid", claimant.pid},
          {"since", claimant.since},
          {"last_seen_seconds", int64_t(claimant.age)},
          {"rank", work.rank},
          {"world_size", work.world_size}};
}

Result<std::vector<Claimant>> list_claimants(const Bucket& bucket) {
  ClaimBoard board(bucket);
  LORRY_ASSIGN(auto all, board.look(""));
  std::sort(all.begin(), all.end(),
            [](const SeenClaim& a, const SeenClaim& b) { return a.record.comes_before(b.record); });
  std::vector<Claimant> living;
  for (const SeenClaim& seen : all) {
    if (!seen.dead && seen.age <= seen.record.seconds + kClockGrain) {
      living.push_back(claimant_of(seen));
    }
  }
  return living;
}

}  // namespace lorry::store

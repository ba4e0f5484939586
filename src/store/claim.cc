#include "store/claim.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <random>
#include <thread>

#include "base/cancel.h"
#include "base/log.h"
#include "base/progress.h"
#include "store/claim_board.h"
#include "store/claim_process.h"
#include "store/layout.h"

namespace lorry::store {
namespace {

using std::chrono::milliseconds;

/// A claim is written anew after this part of its life; one that is older than the second part is
/// looked at before a write, so that a request in flight still ends within it.
constexpr double kBeatPart = 0.2, kFreshPart = 0.6;
/// Claims that are in nobody's way are cleared away after so many lives.
constexpr double kForgottenLives = 20;
constexpr double kFirstWait = 0.1, kLongestWait = 2, kLongestLocalWait = 0.5;  // seconds
/// A claim that waits is written anew after so many seconds: its time stands for now.
constexpr double kOldestNow = 5;
constexpr double kSecondsBetweenLines = 60;

double claim_seconds() {
  const char* text = std::getenv("LORRY_CLAIM_SECONDS");
  const double seconds = text ? std::strtod(text, nullptr) : 0;
  return seconds > 0 ? seconds : kDefaultClaimSeconds;
}

double random_part() {
  thread_local std::mt19937_64 random(std::random_device{}());
  return std::uniform_real_distribution<double>(0, 1)(random);
}

std::string new_id(const ProcessId& process) {
  std::string host = process.host;
  for (char& c : host) {
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-') c = '-';
  }
  std::random_device random;
  return fmt::format("{}-{}-{:08x}{:08x}", host, process.pid, random(), random());
}

/// Sleeps, but for a stop that is asked for.
Result<> pause(double seconds) {
  const double end = seconds_since_boot() + seconds;
  while (seconds_since_boot() < end) {
    LORRY_TRY(check_cancelled());
    std::this_thread::sleep_for(milliseconds(20));
  }
  return check_cancelled();
}

/// Tells for whom this process waits: at once when it is clear that it takes long, then now and
/// then.
class WaitingRoom {
 public:
  void say(const std::string& dir, const Claimant& other) {
    const double now = seconds_since_boot();
    if (begin_ == 0) begin_ = now;
    if (now - begin_ < kPatience && other.held) return;
    if (last_ != 0 && now - last_ < kSecondsBetweenLines) return;
    last_ = now;
    const std::string waited = now - begin_ < kSecondsBetweenLines
                                   ? std::string()
                                   : fmt::format("; {} until now", format_duration(now - begin_));
    log::info("{}: waiting for {}{}; Ctrl-C ends the wait, --no-wait fails at once", dir,
              describe(other), waited);
  }
  void end(const std::string& dir) const {
    if (last_ != 0) log::info("{}: going on", dir);
  }

 private:
  static constexpr double kPatience = 1;  ///< seconds: a claim that is given back meanwhile
  double begin_ = 0, last_ = 0;
};

}  // namespace

struct Claim::Impl {
  std::shared_ptr<Bucket> bucket, guarded;
  std::mutex mutex;  ///< one look at the bucket at a time; guards board, record and lost
  ClaimBoard board;
  ClaimRecord record;
  Result<> lost;
  std::atomic<double> last_sign{0};  ///< when the claim was last written, begun to be

  std::mutex stop_mutex;
  std::condition_variable stopped;
  bool stop = false;
  std::thread heart;

  explicit Impl(std::shared_ptr<Bucket> b) : bucket(std::move(b)), board(*bucket) {}

  ~Impl() {
    {
      std::lock_guard lock(stop_mutex);
      stop = true;
    }
    stopped.notify_all();
    if (heart.joinable()) heart.join();
    lower();
  }

  void lower() {
    auto removed = bucket->remove(record.path());
    if (!removed.ok()) log::debug("a claim stays: {}", removed.error().message);
  }

  Result<> write(bool held) {
    record.held = held;
    const double begin = seconds_since_boot();
    auto written = bucket->write(record.path(), to_text(record));
    if (!written.ok()) {
      return Error{written.error().kind,
                   fmt::format("{}: cannot say in {}/ who is at work: {}", record.work.writes,
                               claims_dir(), written.error().message)};
    }
    last_sign = begin;
    return {};
  }

  struct Others {
    std::optional<Claimant> in_the_way;  ///< alive
    std::vector<std::string> dead;       ///< in conflict, but not alive
    bool crew = false;                   ///< another node of the same work holds its part
    bool mine_is_there = false;
    std::optional<Claimant> took_mine;
  };

  /// What this claim, with its flag raised or not, must heed.
  Result<Others> look() {
    LORRY_ASSIGN(const auto all, board.look(record.id));
    Others others;
    for (const SeenClaim& seen : all) {
      const ClaimRecord& r = seen.record;
      if (r.id == record.id) others.mine_is_there = true;
      const bool node = same_work(r.work, record.work) && r.work.rank != record.work.rank;
      if (r.id != record.id && node && r.held && !seen.dead) others.crew = true;
    }
    for (const SeenClaim& seen : all) {
      const ClaimRecord& r = seen.record;
      if (r.id == record.id) continue;
      if (std::find(r.took.begin(), r.took.end(), record.id) != r.took.end()) {
        others.took_mine = claimant_of(seen);
      }
      if (!in_conflict(r.work, record.work)) {
        const bool forgotten = seen.dead && seen.age > kForgottenLives * r.seconds;
        // A node's own crew must see that it was there and is gone (dismiss).
        const bool node = same_work(r.work, record.work);
        if ((seen.gone && !node) || forgotten) (void)bucket->remove(r.path());
        continue;
      }
      if (seen.dead) {
        others.dead.push_back(r.id);
        continue;
      }
      // Those who came first go first, if they can. A node joins those of its own work at once.
      const bool first = r.held || (!others.crew && r.comes_before(record) && !is_blocked(r, all));
      if (first && (!others.in_the_way || r.held)) others.in_the_way = claimant_of(seen);
    }
    return others;
  }

  /// Whether a claim that waits has to wait for others than this one.
  bool is_blocked(const ClaimRecord& waiting, const std::vector<SeenClaim>& all) const {
    return std::any_of(all.begin(), all.end(), [&](const SeenClaim& seen) {
      const ClaimRecord& r = seen.record;
      return r.held && !seen.dead && r.id != record.id && in_conflict(r.work, waiting.work);
    });
  }

  /// With the flag up and nobody alive in the way: clears the dead away, unless one of them wakes.
  /// False: one did.
  Result<bool> take_over(const Others& others) {
    if (others.dead.empty()) return true;
    record.took = others.dead;
    LORRY_TRY(write(true));
    LORRY_ASSIGN(const Others again, look());
    if (again.in_the_way) {
      record.took.clear();
      return false;
    }
    for (const auto& id : record.took) {
      LORRY_TRY(bucket->remove(join_path(claims_dir(), id + ".json")));
    }
    return true;
  }

  /// The same for one node of the same work.
  Result<bool> dismiss(const std::string& id) {
    record.took.push_back(id);
    LORRY_TRY(write(true));
    LORRY_ASSIGN(const auto all, board.look(record.id));
    const bool woke = std::any_of(all.begin(), all.end(), [&](const SeenClaim& seen) {
      return seen.record.id == id && !seen.dead;
    });
    if (!woke) {
      LORRY_TRY(bucket->remove(join_path(claims_dir(), id + ".json")));
      return true;
    }
    record.took.pop_back();
    LORRY_TRY(write(true));
    return false;
  }

  /// Raises the flag. nullopt: it is up, and this process may work. Else who is in the way, and the
  /// flag is down.
  Result<std::optional<Claimant>> raise() {
    LORRY_TRY(write(true));
    LORRY_ASSIGN(const Others others, look());
    if (!others.in_the_way) {
      LORRY_ASSIGN(const bool taken, take_over(others));
      if (taken) return std::optional<Claimant>();
    }
    LORRY_TRY(write(false));
    return others.in_the_way ? others.in_the_way : std::optional(Claimant{});
  }

  Result<> wait_and_raise() {
    WaitingRoom room;
    double wait = kFirstWait;
    while (true) {
      LORRY_TRY(pause(wait * (0.5 + random_part())));
      wait = std::min(wait * 1.5, bucket->is_local() ? kLongestLocalWait : kLongestWait);
      const double silent = seconds_since_boot() - last_sign;
      if (silent > std::min(kBeatPart * record.seconds, kOldestNow)) LORRY_TRY(write(false));
      LORRY_ASSIGN(const Others others, look());
      auto in_the_way = others.in_the_way;
      if (!in_the_way) {
        LORRY_ASSIGN(in_the_way, raise());
        if (!in_the_way) break;
        wait = kFirstWait;
      }
      if (!in_the_way->id.empty()) room.say(record.work.writes, *in_the_way);
    }
    room.end(record.work.writes);
    return {};
  }

  /// A sign of life, and a look at whether the claim is still this process's. The mutex is held.
  Result<> beat() {
    LORRY_TRY(lost);
    const bool late = seconds_since_boot() - last_sign > record.seconds * kFreshPart;
    LORRY_TRY(confirm_mine());
    LORRY_TRY(write(true));
    // Whoever takes over looks again after it said so; after a sign that came late so do we.
    return late ? confirm_mine() : Result<>();
  }

  Result<> confirm_mine() {
    LORRY_ASSIGN(const Others others, look());
    if (others.mine_is_there && !others.took_mine) return {};
    const double silent = seconds_since_boot() - last_sign;
    lost = unavailable(fmt::format(
        "{}: this process was not heard of for {}, and {} has taken over its work; what it made "
        "since then was not kept. The same command can be run again",
        record.work.writes, format_duration(silent),
        others.took_mine ? describe(*others.took_mine) : std::string("another")));
    lower();
    return lost;
  }

  /// Before each write: a look at the clock, and at the bucket if the last sign of life is old.
  Result<> may_write() {
    const bool fresh = seconds_since_boot() - last_sign < record.seconds * kFreshPart;
    std::unique_lock lock(mutex, std::defer_lock);
    if (!fresh) {
      lock.lock();
      return beat();
    }
    // Held by the heart, which is just looking.
    return lock.try_lock() ? lost : Result<>();
  }

  void keep_alive() {
    const auto interval = std::chrono::duration<double>(record.seconds * kBeatPart);
    std::unique_lock lock(stop_mutex);
    while (!stopped.wait_for(lock, interval, [this] { return stop; })) {
      lock.unlock();
      {
        std::lock_guard beating(mutex);
        auto done = beat();
        if (!done.ok()) log::debug("claim on {}: {}", record.work.writes, done.error().message);
      }
      lock.lock();
    }
  }
};

Claim::Claim(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Claim::~Claim() = default;

Result<std::unique_ptr<Claim>> Claim::take(std::shared_ptr<Bucket> bucket, Work work, bool wait) {
  auto impl = std::make_shared<Impl>(std::move(bucket));
  ClaimRecord& record = impl->record;
  record.process = ProcessId::self();
  record.id = new_id(record.process);
  record.work = std::move(work);
  record.since_ms = now_ms();
  record.seconds = claim_seconds();
  LORRY_ASSIGN(const auto in_the_way, impl->raise());
  if (in_the_way && !wait) {
    return unavailable(fmt::format("{}: {}; without --no-wait this waits for its end",
                                   record.work.writes, describe(*in_the_way)));
  }
  if (in_the_way) LORRY_TRY(impl->wait_and_raise());
  impl->guarded = impl->bucket->guarded([weak = std::weak_ptr(impl)]() -> Result<> {
    const auto self = weak.lock();
    return self ? self->may_write() : cancelled("the claim on what is written was given back");
  });
  impl->heart = std::thread([self = impl.get()] { self->keep_alive(); });
  return std::unique_ptr<Claim>(new Claim(std::move(impl)));
}

const std::shared_ptr<Bucket>& Claim::bucket() const { return impl_->guarded; }

Result<> Claim::confirm() {
  std::lock_guard lock(impl_->mutex);
  return impl_->beat();
}

Result<std::vector<Claimant>> Claim::crew() {
  std::lock_guard lock(impl_->mutex);
  LORRY_ASSIGN(const auto all, impl_->board.look(impl_->record.id));
  std::vector<Claimant> crew;
  for (const SeenClaim& seen : all) {
    if (seen.record.id != impl_->record.id && same_work(seen.record.work, impl_->record.work)) {
      crew.push_back(claimant_of(seen));
    }
  }
  return crew;
}

Result<bool> Claim::dismiss(const Claimant& dead) {
  std::lock_guard lock(impl_->mutex);
  return impl_->dismiss(dead.id);
}

}  // namespace lorry::store

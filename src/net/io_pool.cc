#include "net/io_pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "net/curl_library.h"
#include "net/ranges.h"
#include "net/transfer.h"

namespace lorry::net {
namespace {

constexpr int64_t kStandardMemory = 64 << 20;

std::atomic<int64_t> g_memory{kStandardMemory};
std::atomic<int64_t> g_taken{0};

/// What the threads share; never destroyed, for they may outlive static objects.
struct Pool {
  std::mutex mutex;
  std::condition_variable wake, idle_again;
  std::deque<std::function<void()>> tasks;  ///< guarded by mutex, as are the counts
  int threads = 0, idle = 0;
  bool ending = false;

  void submit(std::function<void()> task) {
    std::lock_guard lock(mutex);
    tasks.push_back(std::move(task));
    if (int(tasks.size()) > idle && threads < kMostTransfers) {
      ++threads;
      std::thread([this] { work(); }).detach();
    } else {
      wake.notify_one();
    }
  }

  void work() {
    std::unique_lock lock(mutex);
    for (;;) {
      while (tasks.empty() || ending) {
        ++idle;
        idle_again.notify_all();
        wake.wait(lock);
        --idle;
      }
      auto task = std::move(tasks.front());
      tasks.pop_front();
      lock.unlock();
      task();
      task = nullptr;  // what it holds is freed outside the lock
      lock.lock();
    }
  }

  /// At the end of the process: libraries below are about to be taken down under the threads.
  void end() {
    stop_all_transfers();
    std::unique_lock lock(mutex);
    ending = true;
    idle_again.wait_for(lock, std::chrono::seconds(3), [this] { return idle == threads; });
  }
};

Pool& pool() {
  // Made after libcurl is initialised, so that its end comes before libcurl's.
  static Pool* const made = [] {
    (void)curl_library();
    return new Pool();
  }();
  static struct AtExit {
    ~AtExit() { made->end(); }
  } at_exit;
  return *made;
}

}  // namespace

void run_in_background(std::function<void()> task) { pool().submit(std::move(task)); }

void set_transfer_memory(int64_t bytes) { g_memory = bytes; }
int64_t transfer_memory() { return g_memory; }

MemoryShare& MemoryShare::operator=(MemoryShare&& other) noexcept {
  release();
  std::swap(bytes_, other.bytes_);
  return *this;
}

bool MemoryShare::try_take(int64_t bytes) {
  if (g_taken.fetch_add(bytes) + bytes > g_memory) {
    g_taken -= bytes;
    return false;
  }
  bytes_ += bytes;
  return true;
}

void MemoryShare::take(int64_t bytes) {
  g_taken += bytes;
  bytes_ += bytes;
}

void MemoryShare::release() {
  g_taken -= bytes_;
  bytes_ = 0;
}

}  // namespace lorry::net

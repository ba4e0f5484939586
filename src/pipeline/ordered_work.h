// Work done by several threads, its results taken in the order in which it was handed in.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

namespace lorry::pipeline {

/// One owner calls `push` and `pop`; tasks run on `threads` threads and must not throw. What was
/// not begun when it is destroyed is left undone.
template <typename T>
class OrderedWork {
 public:
  explicit OrderedWork(size_t threads) {
    for (size_t i = 0; i < threads; ++i) {
      threads_.emplace_back([this](std::stop_token stop) { loop(stop); });
    }
  }

  void push(std::function<T()> task) {
    std::packaged_task<T()> packaged(std::move(task));
    results_.push_back(packaged.get_future());
    {
      std::lock_guard lock(mutex_);
      waiting_.push_back(std::move(packaged));
    }
    ready_.notify_one();
  }

  /// The result of the earliest task that was not taken yet; there must be one.
  T pop() {
    std::future<T> first = std::move(results_.front());
    results_.pop_front();
    return first.get();
  }

  size_t pending() const { return results_.size(); }

 private:
  void loop(std::stop_token stop) {
    std::unique_lock lock(mutex_);
    while (ready_.wait(lock, stop, [this] { return !waiting_.empty(); })) {
      if (stop.stop_requested()) return;
      std::packaged_task<T()> task = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      task();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable_any ready_;
  std::deque<std::packaged_task<T()>> waiting_;  ///< guarded by mutex_
  std::deque<std::future<T>> results_;
  std::vector<std::jthread> threads_;  ///< last: stopped and joined before the rest goes
};

}  // namespace lorry::pipeline

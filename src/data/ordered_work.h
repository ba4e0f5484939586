// Tasks that run on threads of their own and give their results in the order in which they came.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

namespace lorry::data {

/// The threads start with the first task and end with this, after the tasks that they are at.
/// All but the tasks belongs to one thread.
template <typename T>
class OrderedWork {
 public:
  explicit OrderedWork(int threads) : wanted_(threads) {}
  ~OrderedWork() {
    clear();
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
  }
  OrderedWork(const OrderedWork&) = delete;
  OrderedWork& operator=(const OrderedWork&) = delete;

  void push(std::function<T()> task) { results_.push_back(submit(std::move(task), false)); }
  /// A task whose result the caller takes itself; `first` goes before those that wait.
  std::future<T> submit(std::function<T()> task, bool first) {
    std::packaged_task<T()> packaged(std::move(task));
    auto result = packaged.get_future();
    {
      std::lock_guard lock(mutex_);
      tasks_.insert(first ? tasks_.begin() : tasks_.end(), std::move(packaged));
    }
    wake_.notify_one();
    if (int(threads_.size()) < wanted_) threads_.emplace_back([this] { work(); });
    return result;
  }
  size_t size() const { return results_.size(); }
  bool empty() const { return results_.empty(); }
  /// The oldest result; throws what its task threw.
  T pop() {
    auto result = std::move(results_.front());
    results_.pop_front();
    return result.get();
  }
  /// Forgets all tasks; those that were pushed and run are waited for.
  void clear() {
    {
      std::lock_guard lock(mutex_);
      tasks_.clear();
    }
    for (auto& result : results_) result.wait();
    results_.clear();
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [&] { return stopping_ || !tasks_.empty(); });
      if (stopping_) return;
      auto task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      lock.lock();
    }
  }

  const int wanted_;
  std::vector<std::thread> threads_;
  std::deque<std::future<T>> results_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::packaged_task<T()>> tasks_;  // guarded by mutex_
  bool stopping_ = false;                      // guarded by mutex_
};

}  // namespace lorry::data

// The threads of a model that several devices hold together.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "ops/rank_group.h"

namespace lorry::generate {

/// Does work of all ranks at the same time: rank 0's on the thread that calls, each other rank's on
/// a thread of its own. Used from one thread at a time.
class RankThreads {
 public:
  explicit RankThreads(std::shared_ptr<ops::RankGroup> ranks);
  ~RankThreads();
  RankThreads(const RankThreads&) = delete;
  RankThreads& operator=(const RankThreads&) = delete;

  int64_t count() const { return ranks_->size(); }
  /// work(rank) for every rank. If one throws, the others are freed from the sums that they wait
  /// in, and once all have ended the first exception is thrown.
  void run(const std::function<void(int64_t rank)>& work);

 private:
  void serve(int64_t rank);
  void call(int64_t rank);

  std::shared_ptr<ops::RankGroup> ranks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  const std::function<void(int64_t)>* work_ = nullptr;  // guarded by mutex_, as are those after it
  int64_t round_ = 0, busy_ = 0;
  bool stopping_ = false;
  std::exception_ptr failure_;  // the first
  std::vector<std::thread> threads_;
};

}  // namespace lorry::generate

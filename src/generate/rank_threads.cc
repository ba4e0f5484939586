#include "generate/rank_threads.h"

#include <c10/core/InferenceMode.h>

namespace lorry::generate {

RankThreads::RankThreads(std::shared_ptr<ops::RankGroup> ranks) : ranks_(std::move(ranks)) {
  for (int64_t rank = 1; rank < count(); ++rank) {
    threads_.emplace_back([this, rank] { serve(rank); });
  }
}

RankThreads::~RankThreads() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void RankThreads::run(const std::function<void(int64_t)>& work) {
  ranks_->reset();
  {
    const std::lock_guard lock(mutex_);
    work_ = &work;
    busy_ = count();
    failure_ = nullptr;
    ++round_;
  }
  changed_.notify_all();
  call(0);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return busy_ == 0; });
  if (failure_) std::rethrow_exception(failure_);
}

void RankThreads::serve(int64_t rank) {
  const c10::InferenceMode guard;
  int64_t done = 0;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || round_ > done; });
      if (stopping_) return;
      done = round_;
    }
    call(rank);
  }
}

void RankThreads::call(int64_t rank) {
  std::exception_ptr failure;
  try {
    (*work_)(rank);
  } catch (...) {
    failure = std::current_exception();
  }
  {
    const std::lock_guard lock(mutex_);
    // The first is the cause: the others fail because they wait for that rank.
    if (failure && !failure_) failure_ = failure;
    --busy_;
  }
  if (failure) ranks_->fail();
  changed_.notify_all();
}

}  // namespace lorry::generate

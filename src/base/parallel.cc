#include "base/parallel.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace lorry {

Result<> in_parallel(int64_t count, int64_t threads, const std::function<Result<>(int64_t)>& work) {
  std::atomic<int64_t> next = 0;
  std::mutex mutex;
  std::optional<Error> failure;
  const auto loop = [&] {
    for (int64_t i = next++; i < count; i = next++) {
      auto done = work(i);
      if (done.ok()) continue;
      std::lock_guard lock(mutex);
      if (!failure) failure = std::move(done).error();
      next = count;
    }
  };
  {
    std::vector<std::jthread> others;
    for (int64_t t = 1; t < std::min(threads, count); ++t) others.emplace_back(loop);
    loop();
  }
  if (failure) return *std::move(failure);
  return {};
}

}  // namespace lorry

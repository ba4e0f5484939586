#include "ops/rank_group.h"

#include <stdexcept>

#include "ops/cuda_module.h"

namespace lorry::ops {

at::Tensor RankGroup::sum(int64_t rank, at::Tensor x) {
  std::unique_lock lock(mutex_);
  if (!round_) {
    round_ = std::make_shared<Round>();
    round_->parts.resize(static_cast<size_t>(ranks_));
  }
  const std::shared_ptr<Round> round = round_;
  round->parts[static_cast<size_t>(rank)] = x;
  if (++round->arrived == ranks_ && !has_failed_) {
    round_.reset();
    if (x.is_cuda()) (*cuda_module())->sum_over_devices(round->parts);
    round->is_complete = true;
    changed_.notify_all();
  }
  changed_.wait(lock, [&] { return round->is_complete || has_failed_; });
  if (!round->is_complete) throw std::runtime_error("another rank of the model failed");
  lock.unlock();
  if (x.is_cuda()) return x;
  at::Tensor sum = round->parts[0];
  for (size_t other = 1; other < round->parts.size(); ++other) sum = sum + round->parts[other];
  return sum;
}

void RankGroup::fail() {
  const std::lock_guard lock(mutex_);
  has_failed_ = true;
  changed_.notify_all();
}

void RankGroup::reset() {
  const std::lock_guard lock(mutex_);
  has_failed_ = false;
  round_.reset();
}

}  // namespace lorry::ops

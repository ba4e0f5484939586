// Sums over the ranks of a model that several devices hold together. A rank is a thread of this
// process with a device of its own.
#pragma once

#include <ATen/core/Tensor.h>

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace lorry::ops {

class RankGroup {
 public:
  explicit RankGroup(int64_t ranks) : ranks_(ranks) {}
  int64_t size() const { return ranks_; }

  /// The sum of all ranks' x, the same bits on each: on CPUs in the order of the ranks, on GPUs by
  /// NCCL, in x itself. Every rank calls it, on its own thread, as often as the others and with
  /// tensors of one shape and dtype. Throws if a rank has failed instead.
  at::Tensor sum(int64_t rank, at::Tensor x);

  /// A rank will not call `sum` again: those that wait for it, or come later, throw.
  void fail();
  /// Forgets a failure; no rank is in `sum`.
  void reset();

 private:
  /// One sum.
  struct Round {
    std::vector<at::Tensor> parts;  // by rank
    int64_t arrived = 0;
    bool is_complete = false;
  };

  const int64_t ranks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<Round> round_;  // guarded by mutex_, as are those after it
  bool has_failed_ = false;
};

}  // namespace lorry::ops

// The learning rate of each step, as `transformers`' get_scheduler gives it. Free of libtorch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "train/train.h"

namespace lorry::train {

/// One schedule over the whole run. Steps count from 0; the first step of a warm-up has rate 0.
/// Source: `transformers` optimization.py.
class Schedule {
 public:
  /// `type` is one of schedule_types(); another is a usage error that lists them.
  static Result<Schedule> create(const std::string& type, double learning_rate,
                                 int64_t warmup_steps, int64_t total_steps);
  double learning_rate(int64_t step) const;
  /// The highest rate of all steps where the warm-up takes all of them; nullopt where it ends
  /// before.
  std::optional<double> highest_of_warmup() const;

 private:
  enum class Type { kLinear, kCosine, kConstant, kConstantWithWarmup };
  Schedule(Type type, double learning_rate, int64_t warmup_steps, int64_t total_steps)
      : type_(type),
        learning_rate_(learning_rate),
        warmup_steps_(warmup_steps),
        total_steps_(total_steps) {}
  double factor(int64_t step) const;

  Type type_;
  double learning_rate_;
  int64_t warmup_steps_, total_steps_;
};

/// What to tell of a run all of whose steps are within its warm-up: the highest rate, and what to
/// do. Empty where the warm-up ends before, or the options name no schedule.
std::string warm_up_warning(const TrainOptions& options, int64_t total_steps);

/// "linear", "cosine", "constant", "constant_with_warmup"
const std::vector<std::string>& schedule_types();

}  // namespace lorry::train

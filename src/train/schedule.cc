#include "train/schedule.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace lorry::train {

const std::vector<std::string>& schedule_types() {
  static const std::vector<std::string> types = {"linear", "cosine", "constant",
                                                 "constant_with_warmup"};
  return types;
}

Result<Schedule> Schedule::create(const std::string& type, double learning_rate,
                                  int64_t warmup_steps, int64_t total_steps) {
  const auto& types = schedule_types();
  const auto found = std::find(types.begin(), types.end(), type);
  if (found == types.end()) {
    return usage_error(
        fmt::format("no learning-rate schedule '{}'; there are {}", type, fmt::join(types, ", ")));
  }
  return Schedule(static_cast<Type>(found - types.begin()), learning_rate, warmup_steps,
                  total_steps);
}

std::optional<double> Schedule::highest_of_warmup() const {
  if (type_ == Type::kConstant || total_steps_ > warmup_steps_) return std::nullopt;
  return total_steps_ > 0 ? learning_rate(total_steps_ - 1) : 0;
}

std::string warm_up_warning(const TrainOptions& o, int64_t total_steps) {
  const auto schedule =
      Schedule::create(o.lr_scheduler_type, o.learning_rate, o.warmup_steps, total_steps);
  const auto highest = schedule.ok() ? schedule->highest_of_warmup() : std::nullopt;
  if (!highest) return {};
  return fmt::format(
      "{} within the warm-up of {}: the learning rate reaches {} of {}, and {}; lower "
      "--warmup-steps or raise --epochs or --max-steps",
      total_steps == 1 ? "the only step is" : fmt::format("all {} steps are", total_steps),
      o.warmup_steps, *highest, o.learning_rate,
      *highest > 0 ? "little is learned" : "nothing is learned");
}

double Schedule::learning_rate(int64_t step) const { return learning_rate_ * factor(step); }

double Schedule::factor(int64_t step) const {
  if (type_ == Type::kConstant) return 1.0;
  if (step < warmup_steps_) {
    return static_cast<double>(step) / static_cast<double>(std::max<int64_t>(1, warmup_steps_));
  }
  if (type_ == Type::kConstantWithWarmup) return 1.0;
  const auto decay_steps = static_cast<double>(std::max<int64_t>(1, total_steps_ - warmup_steps_));
  if (type_ == Type::kLinear) {
    return std::max(0.0, static_cast<double>(total_steps_ - step) / decay_steps);
  }
  const double progress = static_cast<double>(step - warmup_steps_) / decay_steps;
  return std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
}

}  // namespace lorry::train

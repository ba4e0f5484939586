#include "base/range.h"

#include <fmt/format.h>

#include <cmath>

namespace lorry {

bool Range::contains(double value) const {
  if (!std::isfinite(value)) return false;
  const bool low = above ? value <= min : value < min;
  const bool high = below ? value >= max : value > max;
  return !low && !high;
}

std::string Range::describe() const {
  const bool has_min = std::isfinite(min), has_max = std::isfinite(max);
  if (has_min && has_max && !above && !below) return fmt::format("between {} and {}", min, max);
  std::string text;
  if (has_min) text = fmt::format("{} {}", above ? "greater than" : "at least", min);
  if (has_min && has_max) text += " and ";
  if (has_max) text += fmt::format("{} {}", below ? "below" : "at most", max);
  return text;
}

}  // namespace lorry

// What a number may be: of an option, a flag, a field of a request.
#pragma once

#include <limits>
#include <string>

namespace lorry {

/// An interval. Bounds are inclusive unless `above` or `below` is set; NaN and infinities are in
/// none.
struct Range {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool above = false;  ///< min itself is not allowed
  bool below = false;  ///< max itself is not allowed

  bool contains(double value) const;
  /// "at least 1", "greater than 0", "between 0 and 1", "at least 0 and below 1".
  std::string describe() const;
};

inline Range at_least(double min) { return {.min = min}; }
inline Range above(double min) { return {.min = min, .above = true}; }
inline Range between(double min, double max) { return {.min = min, .max = max}; }
/// [0, 1): a probability that is not certain, a decay.
inline Range below_one() { return {.min = 0, .max = 1, .below = true}; }

}  // namespace lorry

// What each step leaves behind: a line on stderr, a line of metrics.jsonl, the report's curve.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace lorry::train {

/// One optimiser step.
struct StepMetrics {
  int64_t step = 0;      ///< from 1
  double loss = 0;       ///< mean over the target tokens of the step, in nats
  double grad_norm = 0;  ///< before clipping; infinite where float16 overflowed
  double learning_rate = 0;
  double epoch = 0;    ///< passes over the data behind us, as `transformers` counts them
  int64_t shard = 0;   ///< of the step's last example
  int64_t tokens = 0;  ///< of this step's examples
  double tokens_per_second = 0;
};

/// The line of metrics.jsonl, without the newline. Numbers that JSON lacks become null.
std::string metrics_line(const StepMetrics& metrics);
Result<StepMetrics> parse_metrics_line(std::string_view line);
/// Those of several lines, each with its newline.
Result<std::vector<StepMetrics>> parse_metrics_lines(std::string_view lines);

/// The line for people: "step 12/200  loss 1.2345  ...". `seconds_left` < 0: not known yet.
std::string progress_line(const StepMetrics& metrics, int64_t total_steps, double seconds_left);

/// The loss against steps in at most 1,000 points, however long the run: means of equal stretches.
class LossCurve {
 public:
  struct Point {
    double step, loss;
  };
  /// Of a run of `steps` steps.
  explicit LossCurve(int64_t steps);
  void add(const StepMetrics& metrics);
  std::vector<Point> points() const;

 private:
  int64_t stride_;
  int64_t in_stretch_ = 0, finite_ = 0;
  double sum_ = 0, last_step_ = 0;
  std::vector<Point> points_;
};

/// A page of its own: the loss curve and the facts of the run (an object of strings and numbers).
std::string report_html(const std::string& title, const LossCurve& curve, const Json& facts);

}  // namespace lorry::train

#include "train/metrics.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

namespace lorry::train {
namespace {

Json finite_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

double number_or_infinity(const Json& value) {
  return value.is_number() ? value.get<double>() : std::numeric_limits<double>::infinity();
}

std::string duration(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
}

}  // namespace

std::string metrics_line(const StepMetrics& m) {
  return dump_json(Json{{"step", m.step},
                        {"loss", finite_or_null(m.loss)},
                        {"grad_norm", finite_or_null(m.grad_norm)},
                        {"learning_rate", m.learning_rate},
                        {"epoch", m.epoch},
                        {"shard", m.shard},
                        {"tokens", m.tokens},
                        {"tokens_per_second", m.tokens_per_second}});
}

Result<StepMetrics> parse_metrics_line(std::string_view line) {
  LORRY_ASSIGN(const Json json, parse_json(line, "metrics.jsonl"));
  try {
    return StepMetrics{
        json.at("step").get<int64_t>(),           number_or_infinity(json.at("loss")),
        number_or_infinity(json.at("grad_norm")), json.at("learning_rate").get<double>(),
        json.at("epoch").get<double>(),           json.at("shard").get<int64_t>(),
        json.at("tokens").get<int64_t>(),         json.at("tokens_per_second").get<double>()};
  } catch (const std::exception& e) {
    return corrupt_data(fmt::format("metrics.jsonl: {}", e.what()));
  }
}

Result<std::vector<StepMetrics>> parse_metrics_lines(std::string_view lines) {
  std::vector<StepMetrics> steps;
  while (!lines.empty()) {
    const size_t end = std::min(lines.find('\n'), lines.size());
    LORRY_ASSIGN(auto metrics, parse_metrics_line(lines.substr(0, end)));
    steps.push_back(metrics);
    lines.remove_prefix(std::min(end + 1, lines.size()));
  }
  return steps;
}

std::string progress_line(const StepMetrics& m, int64_t total_steps, double seconds_left) {
  return fmt::format("step {}/{}  loss {:.4f}  grad norm {:.3f}  lr {:.3g}  {:.0f} tokens/s{}",
                     m.step, total_steps, m.loss, m.grad_norm, m.learning_rate, m.tokens_per_second,
                     seconds_left < 0 ? "" : fmt::format("  {} left", duration(seconds_left)));
}

}  // namespace lorry::train

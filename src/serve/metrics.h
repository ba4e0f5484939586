// What a server counts, in the text form of Prometheus: vLLM's metrics, called `lorry:` where they
// are called `vllm:`.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "generate/generation.h"

namespace lorry::serve {

/// How often values fell into each of the buckets. Thread-safe.
class Histogram {
 public:
  /// The upper ends of the buckets, ascending; the last bucket has none. They must outlive it.
  explicit Histogram(std::span<const double> bounds) : bounds_(bounds) {}
  void observe(double value);
  /// Its lines; `labels` as in `model_name="m"`.
  void write(std::string_view name, std::string_view labels, std::string& out) const;

 private:
  static constexpr size_t kMostBuckets = 24;
  std::span<const double> bounds_;
  std::array<std::atomic<uint64_t>, kMostBuckets> counts_{};
  std::atomic<double> sum_{0};
};

/// What is counted for one name that requests can ask for. Thread-safe.
struct ModelMetrics {
  ModelMetrics();
  void count_finished(generate::FinishReason reason, std::chrono::duration<double> taken);

  std::atomic<uint64_t> prompt_tokens{0}, generation_tokens{0};
  std::array<std::atomic<uint64_t>, 4> finished{};  ///< stop, length, abort, error
  Histogram first_token, whole;                     ///< seconds since the request came
};

/// What one set of weights does at the moment.
struct QueueGauges {
  std::string model_name;
  int64_t running = 0, waiting = 0;
  double cache_used = 0;                         ///< from 0 to 1
  uint64_t prefix_queries = 0, prefix_hits = 0;  ///< tokens of prompts; of them, found in the cache
  uint64_t draft_tokens = 0, accepted_tokens = 0;  ///< of speculative decoding
};

struct NamedMetrics {
  std::string model_name;
  const ModelMetrics* metrics;
};

inline constexpr std::string_view kMetricsContentType = "text/plain; version=0.0.4; charset=utf-8";

std::string prometheus_text(std::span<const QueueGauges> gauges,
                            std::span<const NamedMetrics> models);

}  // namespace lorry::serve

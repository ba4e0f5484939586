#include "serve/metrics.h"

#include <fmt/format.h>

#include <algorithm>

namespace lorry::serve {
namespace {

// vLLM's buckets.
constexpr double kFirstTokenBounds[] = {0.001, 0.005, 0.01, 0.02,  0.04,  0.06,  0.08, 0.1,
                                        0.25,  0.5,   0.75, 1.0,   2.5,   5.0,   7.5,  10.0,
                                        20.0,  40.0,  80.0, 160.0, 640.0, 2560.0};
constexpr double kWholeBounds[] = {0.3,  0.5,   0.8,   1.0,   1.5,   2.0,    2.5,
                                   5.0,  10.0,  15.0,  20.0,  30.0,  40.0,   50.0,
                                   60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};

constexpr const char* kReasons[] = {"stop", "length", "abort", "error"};

size_t place_of(generate::FinishReason reason) {
  switch (reason) {
    case generate::FinishReason::kStop:
      return 0;
    case generate::FinishReason::kCancelled:
      return 2;
    case generate::FinishReason::kError:
      return 3;
    default:
      return 1;
  }
}

/// A label's value between quotation marks.
std::string label(std::string_view name, std::string_view value) {
  std::string out = fmt::format("{}=\"", name);
  for (const char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out + '"';
}

void write_head(std::string_view name, std::string_view type, std::string_view help,
                std::string& out) {
  out += fmt::format("# HELP lorry:{} {}\n# TYPE lorry:{} {}\n", name, help, name, type);
}

template <typename Value>
void write_line(std::string_view name, std::string_view labels, Value value, std::string& out) {
  out += fmt::format("lorry:{}{{{}}} {}\n", name, labels, value);
}

}  // namespace

void Histogram::observe(double value) {
  const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[static_cast<size_t>(bucket)] += 1;
  sum_ += value;
}

void Histogram::write(std::string_view name, std::string_view labels, std::string& out) const {
  uint64_t total = 0;
  for (size_t i = 0; i <= bounds_.size(); ++i) {
    total += counts_[i];
    const std::string bound = i < bounds_.size() ? fmt::format("{}", bounds_[i]) : "+Inf";
    write_line(fmt::format("{}_bucket", name), fmt::format("le=\"{}\",{}", bound, labels), total,
               out);
  }
  write_line(fmt::format("{}_count", name), labels, total, out);
  write_line(fmt::format("{}_sum", name), labels, sum_.load(), out);
}

ModelMetrics::ModelMetrics() : first_token(kFirstTokenBounds), whole(kWholeBounds) {}

void ModelMetrics::count_finished(generate::FinishReason reason,
                                  std::chrono::duration<double> taken) {
  finished[place_of(reason)] += 1;
  whole.observe(taken.count());
}

std::string prometheus_text(std::span<const QueueGauges> gauges,
                            std::span<const NamedMetrics> models) {
  std::string out;
  const auto of_queues = [&](std::string_view name, std::string_view type, std::string_view help,
                             auto value_of) {
    write_head(name, type, help, out);
    for (const QueueGauges& queue : gauges)
      write_line(name, label("model_name", queue.model_name), value_of(queue), out);
  };
  const auto each = [&](std::string_view name, std::string_view type, std::string_view help,
                        auto write) {
    write_head(name, type, help, out);
    for (const NamedMetrics& model : models)
      write(*model.metrics, label("model_name", model.model_name));
  };
  of_queues("num_requests_running", "gauge", "Sequences that are stepped.",
            [](auto& q) { return q.running; });
  of_queues("num_requests_waiting", "gauge", "Sequences that wait for a place.",
            [](auto& q) { return q.waiting; });
  of_queues("kv_cache_usage_perc", "gauge",
            "Share of the KV cache that sequences hold; 1 is all of it.",
            [](auto& q) { return q.cache_used; });
  of_queues("prefix_cache_queries_total", "counter",
            "Tokens of prompts that were looked for in the cache.",
            [](auto& q) { return q.prefix_queries; });
  of_queues("prefix_cache_hits_total", "counter", "Of those, tokens that were found.",
            [](auto& q) { return q.prefix_hits; });
  of_queues("spec_decode_num_draft_tokens_total", "counter", "Draft tokens that were verified.",
            [](auto& q) { return q.draft_tokens; });
  of_queues("spec_decode_num_accepted_tokens_total", "counter", "Of those, tokens that came true.",
            [](auto& q) { return q.accepted_tokens; });
  each("prompt_tokens_total", "counter", "Tokens of prompts.", [&](auto& model, auto labels) {
    write_line("prompt_tokens_total", labels, model.prompt_tokens.load(), out);
  });
  each("generation_tokens_total", "counter", "Tokens of answers.", [&](auto& model, auto labels) {
    write_line("generation_tokens_total", labels, model.generation_tokens.load(), out);
  });
  each("request_success_total", "counter", "Sequences that ended, by reason.",
       [&](auto& model, auto labels) {
         for (size_t i = 0; i < std::size(kReasons); ++i)
           write_line("request_success_total", label("finished_reason", kReasons[i]) + "," + labels,
                      model.finished[i].load(), out);
       });
  each("time_to_first_token_seconds", "histogram", "Seconds from the request to its first token.",
       [&](auto& model, auto labels) {
         model.first_token.write("time_to_first_token_seconds", labels, out);
       });
  each("e2e_request_latency_seconds", "histogram", "Seconds from the request to its end.",
       [&](auto& model, auto labels) {
         model.whole.write("e2e_request_latency_seconds", labels, out);
       });
  return out;
}

}  // namespace lorry::serve

#include "serve/metrics.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace lorry::serve {
namespace {

bool has_line(const std::string& text, std::string_view line) {
  return text.find(fmt::format("\n{}\n", line)) != std::string::npos;
}

TEST(Metrics, AreWrittenUnderTheModelsNames) {
  ModelMetrics metrics;
  metrics.prompt_tokens += 7;
  metrics.generation_tokens += 3;
  const QueueGauges gauges[] = {{"org/m", 2, 1, 0.25, 64, 32, 9, 4}};
  const NamedMetrics named[] = {{"org/m", &metrics}, {"a\"b\\", &metrics}};
  const std::string text = prometheus_text(gauges, named);
  EXPECT_TRUE(has_line(text, "# TYPE lorry:num_requests_running gauge"));
  EXPECT_TRUE(has_line(text, R"(lorry:num_requests_running{model_name="org/m"} 2)"));
  EXPECT_TRUE(has_line(text, R"(lorry:num_requests_waiting{model_name="org/m"} 1)"));
  EXPECT_TRUE(has_line(text, R"(lorry:kv_cache_usage_perc{model_name="org/m"} 0.25)"));
  EXPECT_TRUE(has_line(text, R"(lorry:prefix_cache_queries_total{model_name="org/m"} 64)"));
  EXPECT_TRUE(has_line(text, R"(lorry:prefix_cache_hits_total{model_name="org/m"} 32)"));
  EXPECT_TRUE(has_line(text, R"(lorry:spec_decode_num_draft_tokens_total{model_name="org/m"} 9)"));
  EXPECT_TRUE(
      has_line(text, R"(lorry:spec_decode_num_accepted_tokens_total{model_name="org/m"} 4)"));
  EXPECT_TRUE(has_line(text, R"(lorry:prompt_tokens_total{model_name="org/m"} 7)"));
  EXPECT_TRUE(has_line(text, R"(lorry:generation_tokens_total{model_name="a\"b\\"} 3)"));
}

TEST(Metrics, AnAnswerIsCountedByItsEndAndInEachBucketThatHoldsIt) {
  ModelMetrics metrics;
  metrics.count_finished(generate::FinishReason::kStop, std::chrono::milliseconds(400));
  metrics.count_finished(generate::FinishReason::kCancelled, std::chrono::hours(3));
  metrics.first_token.observe(0.001);  // an upper end belongs to its bucket
  const NamedMetrics named[] = {{"m", &metrics}};
  const std::string text = prometheus_text({}, named);
  EXPECT_TRUE(
      has_line(text, R"(lorry:request_success_total{finished_reason="stop",model_name="m"} 1)"));
  EXPECT_TRUE(
      has_line(text, R"(lorry:request_success_total{finished_reason="abort",model_name="m"} 1)"));
  EXPECT_TRUE(
      has_line(text, R"(lorry:request_success_total{finished_reason="length",model_name="m"} 0)"));
  const auto bucket = [](std::string_view bound, int count) {
    return "lorry:e2e_request_latency_seconds_bucket{le=\"" + std::string(bound) +
           "\",model_name=\"m\"} " + std::to_string(count);
  };
  EXPECT_TRUE(has_line(text, bucket("0.3", 0)));
  EXPECT_TRUE(has_line(text, bucket("0.5", 1)));
  EXPECT_TRUE(has_line(text, bucket("7680", 1)));
  EXPECT_TRUE(has_line(text, bucket("+Inf", 2)));
  EXPECT_TRUE(has_line(text, R"(lorry:e2e_request_latency_seconds_count{model_name="m"} 2)"));
  EXPECT_TRUE(
      has_line(text, R"(lorry:time_to_first_token_seconds_bucket{le="0.001",model_name="m"} 1)"));
}

}  // namespace
}  // namespace lorry::serve

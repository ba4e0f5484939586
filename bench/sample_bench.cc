// Rates of the sampler alone, for bench.py.
//
//   lorry_sample_bench VOCABULARY   prints for each setting and number of rows: name rows
//   microseconds
//
// A figure is the shortest of 25 calls for all rows, over logits in the shape of a language
// model's (a few likely tokens, a long tail), float32 on the CPU with all threads.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "generate/sampler.h"

namespace {

using namespace lorry::generate;
using Clock = std::chrono::steady_clock;

struct Setting {
  const char* name;
  SequenceRequest request;
};

std::vector<Setting> settings() {
  return {{"greedy", {.sampling = {.temperature = 0}}},
          {"qwen", {.sampling = {.temperature = 0.7, .top_p = 0.8, .top_k = 20}}},
          {"temperature", {.sampling = {.temperature = 0.7}}},
          {"top_p", {.sampling = {.temperature = 0.7, .top_p = 0.9}}},
          {"min_p", {.sampling = {.temperature = 0.7, .min_p = 0.05}}},
          {"penalties", {.sampling = {.temperature = 0.7, .top_k = 20, .repetition_penalty = 1.1}}},
          {"logprobs", {.sampling = {.temperature = 0}, .top_logprobs = 5}}};
}

double shortest_seconds(const at::Tensor& logits, const SequenceRequest& request) {
  const auto count = static_cast<size_t>(logits.size(0));
  const std::vector<int32_t> tokens(500, 7);
  std::vector<std::mt19937_64> rngs;
  std::vector<SamplingRow> rows;
  for (size_t i = 0; i < count; ++i) rngs.emplace_back(i);
  for (size_t i = 0; i < count; ++i) rows.push_back({&request, tokens, &rngs[i]});
  std::vector<double> seconds;
  for (int i = 0; i < 25; ++i) {
    const auto begin = Clock::now();
    sample_rows(logits, rows);
    seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  return *std::min_element(seconds.begin(), seconds.end());
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t vocab = argc > 1 ? std::atoll(argv[1]) : 151936;
  at::manual_seed(1);
  for (const int64_t rows : {1, 16, 64}) {
    const at::Tensor logits = at::randn({rows, vocab}) * 2.5;
    logits.slice(1, 0, vocab, vocab / 12).add_(at::rand({rows, 1}) * 12);
    for (const Setting& setting : settings()) {
      fmt::print("{} {} {:.1f}\n", setting.name, rows,
                 shortest_seconds(logits, setting.request) * 1e6);
    }
  }
  return 0;
}

// For tests/test_sampling.py: draws tokens from given logits many times.
//
//   lorry_generate_probe REQUEST.json
//
// The request: {"bucket", "logits": dir of a model.safetensors with "logits" (R, V), "draws": N,
// "rows": [{"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty",
// "frequency_penalty", "seed", "prompt": [ids], "output": [ids], "logit_bias": [[id, bias], ...],
// "top_logprobs"}, ...]}. Prints for each row {"counts": [[id, times], ...], "logprob": of the last
// draw, "top": [[id, logprob], ...]}.
#include <ATen/ATen.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "generate/sampler.h"
#include "model/safetensors.h"
#include "store/bucket.h"

namespace lorry::generate {
namespace {

SequenceRequest request_of(const Json& row) {
  SequenceRequest out;
  out.prompt = row.value("prompt", std::vector<int32_t>{0});
  out.sampling.temperature = row.value("temperature", 1.0);
  out.sampling.top_p = row.value("top_p", 1.0);
  out.sampling.top_k = row.value("top_k", int64_t{0});
  out.sampling.min_p = row.value("min_p", 0.0);
  out.sampling.repetition_penalty = row.value("repetition_penalty", 1.0);
  out.sampling.presence_penalty = row.value("presence_penalty", 0.0);
  out.sampling.frequency_penalty = row.value("frequency_penalty", 0.0);
  out.logit_bias = row.value("logit_bias", decltype(out.logit_bias){});
  out.top_logprobs = row.value("top_logprobs", int64_t{-1});
  return out;
}

Json describe(const std::map<int32_t, int64_t>& counts, const TokenEvent& last) {
  Json top = Json::array();
  for (const TokenLogprob& token : last.top) top.push_back({token.id, token.logprob});
  return {{"counts", std::vector<std::pair<int32_t, int64_t>>(counts.begin(), counts.end())},
          {"logprob", last.logprob},
          {"top", std::move(top)}};
}

Result<> run(const std::string& path) {
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  LORRY_ASSIGN(const Json request, parse_json(text, path));
  LORRY_ASSIGN(const auto bucket, store::Bucket::open(request["bucket"], false));
  LORRY_ASSIGN(const auto reader,
               model::SafetensorsReader::open(*bucket, request["logits"], "model"));
  LORRY_ASSIGN(const at::Tensor logits, reader->tensor("logits"));
  const size_t count = request["rows"].size();
  std::vector<SequenceRequest> requests;
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::mt19937_64> rngs;
  for (const Json& row : request["rows"]) {
    requests.push_back(request_of(row));
    tokens.push_back(requests.back().prompt);
    const auto output = row.value("output", std::vector<int32_t>{});
    tokens.back().insert(tokens.back().end(), output.begin(), output.end());
    rngs.emplace_back(row.value("seed", uint64_t{1}));
  }
  std::vector<SamplingRow> rows;
  for (size_t i = 0; i < count; ++i) rows.push_back({&requests[i], tokens[i], &rngs[i]});
  std::vector<std::map<int32_t, int64_t>> counts(count);
  std::vector<TokenEvent> events;
  for (int64_t draw = 0; draw < request.value("draws", int64_t{1}); ++draw) {
    events = sample_rows(logits, rows);
    for (size_t i = 0; i < count; ++i) ++counts[i][events[i].id];
  }
  Json out = Json::array();
  for (size_t i = 0; i < count; ++i) out.push_back(describe(counts[i], events[i]));
  std::puts(dump_json(out).c_str());
  return {};
}

}  // namespace
}  // namespace lorry::generate

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const auto result = lorry::generate::run(argv[1]);
  if (result.ok()) return 0;
  std::fprintf(stderr, "%s\n", result.error().message.c_str());
  return 1;
}

// For tests/test_model.py: runs a checkpoint on token ids and saves what came out.
//
//   lorry_model_probe REQUEST.json
//
// The request: {"bucket", "model", "output", "dtype", "device", "sequences": [[id, ...], ...],
// "adapters": [dir or null, ...] (one for each sequence, or one for all), "mode": "packed" |
// "cached", "chunk": tokens a step of a prompt, "prefill": prompt tokens, "save_adapter": dir,
// "merge": dir, "pack": true, "blocks", "head": formats to quantise to, "ranks": how many hold the
// model together}, or "spec": true. Logits of sequence i are saved as "i" in float32.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "generate/cached_attention.h"
#include "generate/rank_threads.h"
#include "model/checkpoint_edits.h"
#include "model/families.h"
#include "model/transformer.h"

namespace lorry::model {
using generate::CachedAttention;
using generate::KvCache;
using generate::SequenceStep;

namespace {

using Sequences = std::vector<std::vector<int32_t>>;

struct Probe {
  Json request;
  std::shared_ptr<store::Bucket> bucket;
  std::shared_ptr<Transformer> model;
  std::map<std::string, std::shared_ptr<const LoraAdapter>> adapters;
  Sequences sequences;
};

/// The adapters of `rows` = {sequence, tokens} in the order of a flat run.
AdapterView view_of(const Probe& probe, const std::vector<std::pair<size_t, int64_t>>& rows) {
  const Json& names = probe.request["adapters"];
  const auto find = [&](const Json& name) -> std::shared_ptr<const LoraAdapter> {
    return name.is_null() ? nullptr : probe.adapters.at(name.get<std::string>());
  };
  if (names.empty()) return AdapterView::none();
  if (names.size() == 1) return AdapterView::one(find(names[0]));
  AdapterView view;
  for (const Json& name : names) view.adapters.push_back(find(name));
  for (const auto& [sequence, tokens] : rows) {
    view.segments.emplace_back(static_cast<int64_t>(sequence), tokens);
  }
  return view;
}

at::Tensor run_step(const Probe& probe, const at::Tensor& ids, const at::Tensor& positions,
                    const std::vector<std::pair<size_t, int64_t>>& rows, AttentionView& attention) {
  const AdapterView view = view_of(probe, rows);
  const at::Tensor hidden = probe.model->forward(ids, positions, attention, view);
  return probe.model->logits(hidden, view).to(at::kCPU, at::kFloat);
}

std::vector<at::Tensor> run_packed(const Probe& probe) {
  std::vector<int64_t> ids, positions, ends = {0};
  std::vector<std::pair<size_t, int64_t>> rows;
  for (size_t i = 0; i < probe.sequences.size(); ++i) {
    const auto n = static_cast<int64_t>(probe.sequences[i].size());
    ids.insert(ids.end(), probe.sequences[i].begin(), probe.sequences[i].end());
    for (int64_t position = 0; position < n; ++position) positions.push_back(position);
    rows.emplace_back(i, n);
    ends.push_back(ends.back() + n);
  }
  const auto to_device = [&](const std::vector<int64_t>& values) {
    return at::tensor(values, at::kLong).to(probe.model->device());
  };
  PackedAttention attention(ends);
  const at::Tensor logits = run_step(probe, to_device(ids), to_device(positions), rows, attention);
  std::vector<at::Tensor> result;
  for (size_t i = 0; i + 1 < ends.size(); ++i) {
    result.push_back(logits.narrow(0, ends[i], ends[i + 1] - ends[i]));
  }
  return result;
}

/// The same by so many ranks, each of which computes a part of the vocabulary.
Result<std::vector<at::Tensor>> run_packed_ranks(const Probe& probe, const LoadOptions& options,
                                                 size_t count) {
  LORRY_ASSIGN(const auto ranks,
               Transformer::load_ranks(*probe.bucket, probe.request["model"], options,
                                       std::vector<at::Device>(count, options.device)));
  std::vector<Probe> parts(count, probe);
  for (size_t rank = 0; rank < count; ++rank) {
    parts[rank].model = ranks[rank];
    for (auto& [name, adapter] : parts[rank].adapters) {
      LORRY_ASSIGN(adapter, adapter->part_of(*parts[rank].model->shard(), options.device));
    }
  }
  std::vector<std::vector<at::Tensor>> logits(count);
  generate::RankThreads(ranks[0]->ranks()).run([&](int64_t rank) {
    const at::NoGradGuard no_grad;
    logits[rank] = run_packed(parts[rank]);
  });
  std::vector<at::Tensor> joined;
  for (size_t i = 0; i < probe.sequences.size(); ++i) {
    std::vector<at::Tensor> of_ranks;
    for (const auto& of_rank : logits) of_ranks.push_back(of_rank[i]);
    joined.push_back(at::cat(of_ranks, 1));
  }
  return joined;
}

/// Prompts in chunks, then token by token, all sequences together.
std::vector<at::Tensor> run_cached(const Probe& probe) {
  const int64_t chunk = probe.request.value("chunk", int64_t{5});
  const int64_t prefill = probe.request.value("prefill", int64_t{8});
  const size_t count = probe.sequences.size();
  KvCache cache(probe.model->spec().cache_layout(), 4096, probe.model->dtype(),
                {probe.model->device()});
  std::vector<KvCache::Sequence> cached(count);
  std::vector<std::vector<at::Tensor>> parts(count);
  while (true) {
    std::vector<SequenceStep> steps;
    std::vector<std::pair<size_t, int64_t>> rows;
    for (size_t i = 0; i < count; ++i) {
      const auto total = static_cast<int64_t>(probe.sequences[i].size());
      const int64_t begin = cached[i].length;
      const int64_t end = std::min(total, begin < prefill ? begin + chunk : begin + 1);
      if (begin == end || !cache.reserve(cached[i], end)) continue;
      const std::span tokens(probe.sequences[i]);
      steps.push_back({.cache = &cached[i],
                       .tokens = tokens.subspan(begin, end - begin),
                       .known_tokens = total});
      rows.emplace_back(i, end - begin);
    }
    if (steps.empty()) break;
    const auto inputs = generate::make_step_inputs(steps, {}, probe.model->device());
    CachedAttention attention(cache, steps, inputs);
    const at::Tensor logits = run_step(probe, inputs.input_ids, inputs.positions, rows, attention);
    int64_t start = 0;
    for (const auto& [sequence, n] : rows) {
      parts[sequence].push_back(logits.narrow(0, start, n));
      cached[sequence].length += n;
      start += n;
    }
  }
  std::vector<at::Tensor> result;
  for (auto& rows : parts) result.push_back(at::cat(rows, 0));
  return result;
}

Result<> write_adapter_outputs(const Probe& probe) {
  if (probe.adapters.empty()) return {};
  const LoraAdapter& adapter = *probe.adapters.begin()->second;
  if (probe.request.contains("save_adapter")) {
    LORRY_TRY(adapter.save(*probe.bucket, probe.request["save_adapter"], "base"));
  }
  if (!probe.request.contains("merge")) return {};
  const std::string dir = probe.request["model"];
  LORRY_ASSIGN(const auto reader, SafetensorsReader::open(*probe.bucket, dir, "model"));
  LORRY_ASSIGN(const auto merge, CheckpointEdits::merging(probe.model->spec(), adapter, *reader));
  NamedTensors weights;
  for (const std::string& name : reader->names()) {
    LORRY_ASSIGN(const at::Tensor stored, reader->tensor(name));
    weights.emplace_back(name, merge.apply(name, stored));
  }
  return write_safetensors(
      *probe.bucket,
      store::join_path(probe.request["merge"].get<std::string>(), "model.safetensors"), weights);
}

/// What config.json alone says: sizes and windows, or the refusal.
Result<> print_spec(const Probe& probe, const std::string& dir) {
  LORRY_ASSIGN(const std::string text, probe.bucket->read(store::join_path(dir, "config.json")));
  LORRY_ASSIGN(const Json config, parse_json(text, "config.json"));
  LORRY_ASSIGN(const ModelSpec spec, parse_model_spec(config, nullptr));
  int64_t numbers = 0;
  for (const LinearSpec& linear : spec.linears) {
    numbers += linear.in * linear.out();
    for (const Module& module : linear.modules) {
      if (!module.bias.name.empty()) numbers += module.rows;
    }
  }
  for (const TensorSpec& tensor : spec.tensors) {
    int64_t size = 1;
    for (const int64_t extent : tensor.shape) size *= extent;
    numbers += size;
  }
  Json layers = Json::array();
  for (const int64_t window : spec.windows()) layers.push_back({{"window", window}});
  const Json json{{"architecture", spec.architecture},
                  {"model_type", spec.model_type},
                  {"layers", layers},
                  {"parameters", numbers},
                  {"max_position_embeddings", spec.max_position_embeddings}};
  fmt::print("{}\n", dump_json(json));
  return {};
}

LoadOptions load_options(const Json& request, at::ScalarType dtype, at::Device device) {
  LoadOptions out{dtype, device, request.value("pack", false)};
  for (const auto format : {ops::WeightFormat::kInt8Rows, ops::WeightFormat::kInt4Groups,
                            ops::WeightFormat::kFp8Rows, ops::WeightFormat::kNf4}) {
    if (request.value("blocks", "dense") == ops::format_name(format)) out.base_format = format;
    if (request.value("head", "dense") == ops::format_name(format)) out.head_format = format;
  }
  return out;
}

Result<> run(const std::string& path) {
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  Probe probe;
  LORRY_ASSIGN(probe.request, parse_json(text, path));
  Json& request = probe.request;
  if (!request.contains("adapters")) request["adapters"] = Json::array();
  LORRY_ASSIGN(probe.bucket, store::Bucket::open(request["bucket"], false));
  const std::string dir = request["model"];
  if (request.value("spec", false)) return print_spec(probe, dir);
  if (request.value("check", false)) return check_checkpoint(*probe.bucket, dir);
  LORRY_ASSIGN(const ModelSpec spec, load_model_spec(*probe.bucket, dir));
  LORRY_ASSIGN(const at::Device device, ops::resolve_device(request.value("device", "cpu")));
  LORRY_ASSIGN(const at::ScalarType dtype,
               ops::resolve_dtype(request.value("dtype", "auto"), spec.dtype, device));
  const LoadOptions options = load_options(request, dtype, device);
  LORRY_ASSIGN(probe.model, Transformer::load(*probe.bucket, dir, options));
  for (const Json& name : request["adapters"]) {
    if (name.is_null() || probe.adapters.contains(name)) continue;
    LORRY_ASSIGN(probe.adapters[name],
                 LoraAdapter::load(*probe.bucket, name, probe.model->spec(), device));
  }
  if (request.contains("create_adapter")) {
    LoraConfig lora;
    lora.r = request.value("r", int64_t{4});
    LORRY_ASSIGN(const auto adapter,
                 LoraAdapter::create(spec, lora, request.value("seed", 1), device));
    return adapter->save(*probe.bucket, request["create_adapter"], "base");
  }
  probe.sequences = request["sequences"].get<Sequences>();
  const at::NoGradGuard no_grad;
  const bool cached = request.value("mode", "packed") == "cached";
  std::vector<at::Tensor> logits;
  if (request.contains("ranks")) {
    LORRY_ASSIGN(logits, run_packed_ranks(probe, options, request["ranks"]));
  } else {
    logits = cached ? run_cached(probe) : run_packed(probe);
  }
  NamedTensors named;
  for (size_t i = 0; i < logits.size(); ++i) named.emplace_back(std::to_string(i), logits[i]);
  LORRY_TRY(write_safetensors(*probe.bucket, request["output"], named));
  return write_adapter_outputs(probe);
}

}  // namespace
}  // namespace lorry::model

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const auto result = lorry::model::run(argv[1]);
  if (result.ok()) return 0;
  std::fprintf(stderr, "%s\n", result.error().message.c_str());
  return 1;
}

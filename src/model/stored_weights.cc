#include "model/stored_weights.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>  // join

#include <algorithm>

namespace lorry::model {
namespace {

constexpr std::string_view kModel = "model.", kHead = "lm_head.";

/// Prefixes of a model that was saved inside of something else.
struct Wrapper {
  const char *prefix, *advice;
};
constexpr Wrapper kWrappers[] = {
    {"base_model.model.",
     "it is a model with peft's adapter around it; save what merge_and_unload "
     "gives, or give the adapter to lorry train --adapter"},
    {"_orig_mod.", "it was saved with torch.compile around it; save model._orig_mod"},
    {"_fsdp_wrapped_module.", "it was saved with FSDP around it; save the whole model unwrapped"},
    {"module.", "it was saved with a wrapper for several devices around it; save model.module"},
};

bool is_wrapped(const SafetensorsReader& reader, const std::string& prefix) {
  const auto names = reader.names();
  return !names.empty() && std::all_of(names.begin(), names.end(), [&](const std::string& name) {
    return name.starts_with(prefix);
  });
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("({})", fmt::join(shape, ", "));
}

/// Rows, and the step between them, turned into the shape of the tensor that holds them: a factor
/// of two for interleaved halves, as many as stand there for a stacked one.
bool has_rows(const std::vector<int64_t>& shape, size_t dim, const StoredAt& at, int64_t rows) {
  return dim < shape.size() && at.first + (rows - 1) * at.step < shape[dim] &&
         (at.step > 1 || at.first > 0 || shape[dim] == rows);
}

}  // namespace

StoredWeights::StoredWeights(const SafetensorsReader& reader, const ModelSpec& spec)
    : reader_(reader), spec_(spec), prefix_(kModel) {
  const std::string norm = "norm.weight";  // every checkpoint has the last norm
  for (const char* prefix : {"model.", "", "language_model.model.", "model.language_model.",
                             "model.language_model.model.", "language_model."}) {
    if (!reader.contains(prefix + norm)) continue;
    prefix_ = prefix;
    break;
  }
  if (prefix_ == "language_model.model.") head_prefix_ = "language_model.";
}

std::string StoredWeights::stored_name(const std::string& name) const {
  const auto place = [&](const std::string& canonical) {
    if (canonical.starts_with(kModel)) return prefix_ + canonical.substr(kModel.size());
    const std::string own = head_prefix_ + canonical;
    return reader_.contains(own) ? own : canonical;
  };
  std::string stored = place(name);
  const bool is_embedding = name == spec_.tensors[spec_.embed].name;
  if (spec_.tie_word_embeddings && is_embedding && !reader_.contains(stored)) {
    const std::string head = place("lm_head.weight");
    if (reader_.contains(head)) return head;
  }
  return stored;
}

Result<> StoredWeights::missing(const std::string& name) const {
  // What is published keeps the checkpoint's names, and nobody could load these.
  for (const Wrapper& wrapper : kWrappers) {
    if (!is_wrapped(reader_, wrapper.prefix)) continue;
    return unsupported(fmt::format("{}the tensors' names begin with {}: {}", reader_.where(),
                                   wrapper.prefix, wrapper.advice));
  }
  for (const char* suffix : {".qweight", ".qzeros", ".scales"}) {
    const size_t at = name.rfind(".weight");
    if (at == std::string::npos || !reader_.contains(name.substr(0, at) + suffix)) continue;
    return unsupported(fmt::format(
        "{}the weights are quantised (tensor {}); lorry reads float32, bfloat16 and float16 "
        "checkpoints: take the unquantised model",
        reader_.where(), name.substr(0, at) + suffix));
  }
  return corrupt_data(
      fmt::format("{}tensor {} is missing from the safetensors files", reader_.where(), name));
}

Result<> StoredWeights::check_tensor(const std::string& canonical,
                                     const std::vector<int64_t>& shape) const {
  const std::string name = stored_name(canonical);
  if (!reader_.contains(name)) return missing(name);
  if (reader_.shape(name) != shape) {
    return corrupt_data(fmt::format("{}tensor {} is {}, config.json asks for {}", reader_.where(),
                                    name, shape_text(reader_.shape(name)), shape_text(shape)));
  }
  const std::string dtype = reader_.dtype(name);
  if (dtype != "F32" && dtype != "BF16" && dtype != "F16") {
    return unsupported(fmt::format("{}tensor {} is {}; lorry reads F32, BF16 and F16",
                                   reader_.where(), name, dtype));
  }
  return {};
}

bool StoredWeights::is_mxfp4(const StoredAt& at) const {
  const std::string name = stored_name(at.name);
  return !reader_.contains(name) && reader_.contains(name + "_blocks") &&
         reader_.contains(name + "_scales");
}

std::optional<PackedKind> StoredWeights::packed(const StoredAt& at) const {
  return packed_kind(reader_, stored_name(at.name));
}

bool StoredWeights::is_quantised() const {
  return std::any_of(spec_.linears.begin(), spec_.linears.end(), [&](const LinearSpec& linear) {
    return std::any_of(linear.modules.begin(), linear.modules.end(),
                       [&](const Module& module) { return packed(module.weight).has_value(); });
  });
}

Result<> StoredWeights::check_module(const LinearSpec& linear, const Module& module) const {
  const StoredAt& at = module.weight;
  if (const auto kind = packed(at)) {
    const std::string name = stored_name(at.name);
    if (at.index >= 0 || at.step != 1 || at.first != 0 || at.transposed) {
      return unsupported(
          fmt::format("{}{} is quantised and holds several matrices, which lorry "
                      "does not read",
                      reader_.where(), codes_name(*kind, name)));
    }
    LORRY_TRY(check_packed(reader_, *kind, name, module.rows, linear.in));
  } else if (at.index < 0 && at.step == 1 && at.first == 0 && !at.transposed) {
    LORRY_TRY(check_tensor(at.name, {module.rows, linear.in}));
  } else {
    const bool quantised = is_mxfp4(at);
    const std::string name = stored_name(at.name) + (quantised ? "_blocks" : "");
    if (!reader_.contains(name)) return missing(name);
    const std::vector<int64_t> shape = reader_.shape(name);
    const size_t first = at.index < 0 ? 0 : 1;  // dimension of a single matrix
    const bool transposed = at.transposed && !quantised;
    const bool good =
        (at.index < 0 || (!shape.empty() && at.index < shape[0])) &&
        has_rows(shape, first + (transposed ? 1 : 0), at, module.rows) &&
        (quantised ? shape.size() == first + 3 && shape[first + 1] * ops::kMxfp4Block == linear.in
                   : shape.size() == first + 2 && shape[first + (transposed ? 0 : 1)] == linear.in);
    if (!good) {
      return corrupt_data(fmt::format("{}tensor {} is {}, which does not hold the {} x {} of {}",
                                      reader_.where(), name, shape_text(shape), module.rows,
                                      linear.in, module.name));
    }
  }
  if (module.bias.name.empty()) return {};
  if (module.bias.index < 0) return check_tensor(module.bias.name, {module.rows});
  const std::string bias = stored_name(module.bias.name);
  return reader_.contains(bias) ? Result<>() : missing(bias);
}

Result<> StoredWeights::check() const {
  for (const TensorSpec& tensor : spec_.tensors) {
    LORRY_TRY(check_tensor(tensor.name, tensor.shape));
  }
  for (const LinearSpec& linear : spec_.linears) {
    for (const Module& module : linear.modules) LORRY_TRY(check_module(linear, module));
  }
  return {};
}

Result<at::Tensor> StoredWeights::tensor(const TensorSpec& spec) const {
  return reader_.tensor(stored_name(spec.name));
}

at::Tensor part_of(const at::Tensor& stored, const StoredAt& at, int64_t rows) {
  at::Tensor part = at.index < 0 ? stored : stored.select(0, at.index);
  if (at.transposed) part = part.t();
  if (at.first == 0 && at.step == 1 && part.size(0) == rows) return part;
  return part.slice(0, at.first, at.first + (rows - 1) * at.step + 1, at.step);
}

std::pair<size_t, uint64_t> StoredWeights::place(const TensorSpec& spec) const {
  return reader_.place(stored_name(spec.name));
}

std::pair<size_t, uint64_t> StoredWeights::place(const Module& module) const {
  std::string weight = stored_name(module.weight.name);
  if (is_mxfp4(module.weight)) weight += "_blocks";
  if (const auto kind = packed(module.weight)) weight = codes_name(*kind, weight);
  const auto of_weight = reader_.place(weight);
  if (module.bias.name.empty()) return of_weight;
  return std::min(of_weight, reader_.place(stored_name(module.bias.name)));
}

Result<at::Tensor> StoredWeights::read(const std::string& name, const StoredAt& at,
                                       Slot slot) const {
  if (at.index < 0 && at.step == 1) return reader_.tensor(name);
  const std::lock_guard lock(mutex_);
  auto& [last_name, last] = last_[slot];
  if (last_name == name) return last;
  last = at::Tensor();  // before the next one takes memory
  last_name.clear();
  LORRY_ASSIGN(last, reader_.tensor(name));
  last_name = name;
  return last;
}

Result<ops::Weight> StoredWeights::weight(const LinearSpec& linear, const Module& module,
                                          std::optional<at::ScalarType> dtype,
                                          at::Device device) const {
  const auto placed = [&](const at::Tensor& part) {
    return part.to(device, dtype.value_or(part.scalar_type()));
  };
  ops::Weight weight;
  weight.out = module.rows;
  weight.in = linear.in;
  if (!module.bias.name.empty()) {  // in most files it lies before the matrix
    LORRY_ASSIGN(const at::Tensor bias, read(stored_name(module.bias.name), module.bias, kBias));
    weight.bias = placed(part_of(bias, module.bias, module.rows).contiguous());
  }
  const std::string name = stored_name(module.weight.name);
  if (const auto kind = packed(module.weight)) {
    LORRY_ASSIGN(ops::Weight read, read_packed(reader_, *kind, name, module.rows, linear.in));
    read.bias = std::move(weight.bias);
    return read.to(device);
  }
  if (is_mxfp4(module.weight)) {
    // (experts, rows, in / 32, 16) codes and (experts, rows, in / 32) exponents.
    StoredAt at = module.weight;
    at.transposed = false;
    LORRY_ASSIGN(const at::Tensor blocks, read(name + "_blocks", at, kWeight));
    LORRY_ASSIGN(const at::Tensor scales, read(name + "_scales", at, kScales));
    weight.format = ops::WeightFormat::kMxfp4;
    weight.data = part_of(blocks, at, module.rows).reshape({module.rows, linear.in / 2}).to(device);
    weight.scales = part_of(scales, at, module.rows).contiguous().to(device);
    return weight;
  }
  LORRY_ASSIGN(const at::Tensor stored, read(name, module.weight, kWeight));
  at::Tensor part = part_of(stored, module.weight, module.rows);
  if (module.weight.step != 1) part = part.contiguous();
  weight.data = placed(part);
  return weight;
}

Result<bool> StoredWeights::has_own_head() const {
  const std::string embed = stored_name(spec_.tensors[spec_.embed].name);
  const std::string head = stored_name("lm_head.weight");
  if (!spec_.tie_word_embeddings || embed == head || !reader_.contains(embed) ||
      !reader_.contains(head)) {
    return false;
  }
  LORRY_ASSIGN(const at::Tensor a, reader_.tensor(embed));
  LORRY_ASSIGN(const at::Tensor b, reader_.tensor(head));
  return !(a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() && at::equal(a, b));
}

}  // namespace lorry::model

// Reading a checkpoint into a Transformer, and checking one without reading it.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/parallel.h"
#include "model/families.h"
#include "model/shard_weights.h"
#include "model/stored_weights.h"
#include "model/transformer.h"
#include "ops/row_products.h"

namespace lorry::model {

Result<ModelSpec> load_model_spec(const hub::ModelDir& files) {
  auto parsed = parse_model_spec(files.config(), files.generation_config());
  if (!parsed.ok() && !files.path().empty()) return parsed.error().with_context(files.path());
  if (!parsed.ok()) return parsed.error();
  ModelSpec spec = std::move(parsed).value();
  if (spec.dtype.empty()) {
    LORRY_ASSIGN(spec.dtype, files.stored_dtype());
  }
  return spec;
}

Result<ModelSpec> load_model_spec(const store::Bucket& bucket, const std::string& dir) {
  LORRY_ASSIGN(const auto files, hub::ModelDir::open(bucket, dir));
  return load_model_spec(files);
}

/// The steps of Transformer::load and BlockwiseModel.
class ModelLoader {
 public:
  /// ranks: null for the whole model, else those of which `rank` is loaded.
  ModelLoader(std::shared_ptr<SafetensorsReader> reader, ModelSpec spec, const LoadOptions& options,
              std::shared_ptr<ops::RankGroup> ranks = nullptr, int64_t rank = 0)
      : options_(options),
        reader_(std::move(reader)),
        whole_(std::move(spec)),
        model_(new Transformer) {
    model_->dtype_ = options.dtype;
    model_->device_ = options.device;
    model_->ranks_ = std::move(ranks);
    model_->rank_ = rank;
    stored_ = std::make_unique<StoredWeights>(*reader_, whole_);
  }

  /// The model without what belongs to blocks.
  Result<std::shared_ptr<Transformer>> begin() {
    LORRY_TRY(stored_->check());
    if (!options_.pack && stored_->is_quantised()) {
      return unsupported(reader_->where() +
                         "the weights are quantised: it can be served, not trained; take the "
                         "unquantised model");
    }
    LORRY_TRY(untie());
    LORRY_TRY(take_part());
    const Result<> fits = check_base_format(model_->spec_, options_.base_format);
    if (!fits.ok()) return Error{fits.error().kind, reader_->where() + fits.error().message};
    model_->tensors_.resize(model_->spec_.tensors.size());
    for (const LinearSpec& linear : model_->spec_.linears) {
      model_->linears_.emplace_back(linear.modules.size());
    }
    LORRY_TRY(load([](int64_t layer) { return layer < 0; }));
    if (options_.head_format != ops::WeightFormat::kDense) {
      LORRY_TRY(quantize_head());
    } else if (packs()) {
      LORRY_TRY(pack_head());
    }
    for (const RopeSpec& rope : model_->spec_.ropes) {
      model_->ropes_.push_back(rope_frequencies(rope).to(options_.device));
    }
    return model_;
  }

  Result<> load_blocks() {
    return load([](int64_t layer) { return layer >= 0; });
  }
  Result<> load_block(int64_t wanted) {
    return load([wanted](int64_t layer) { return layer == wanted; });
  }
  void free_block(int64_t layer) {
    const ModelSpec& spec = model_->spec_;
    for (size_t i = 0; i < spec.tensors.size(); ++i) {
      if (spec.tensors[i].layer == layer) model_->tensors_[i] = at::Tensor();
    }
    for (size_t i = 0; i < spec.linears.size(); ++i) {
      if (spec.linears[i].layer != layer) continue;
      for (ops::Weight& weight : model_->linears_[i]) weight = ops::Weight();
    }
  }

 private:
  /// What of the whole model this rank holds.
  Result<> take_part() {
    if (model_->ranks_) {
      LORRY_ASSIGN(model_->shard_, shard_model(whole_, model_->rank_, model_->ranks_->size()));
    }
    model_->spec_ = model_->shard_ ? model_->shard_->spec : whole_;
    return {};
  }

  /// A checkpoint that says "tied" and yet holds two different matrices means the matrices.
  Result<> untie() {
    ModelSpec& spec = whole_;
    LORRY_ASSIGN(const bool own_head, stored_->has_own_head());
    if (!own_head) return {};
    spec.tie_word_embeddings = false;
    spec.head = static_cast<int>(spec.tensors.size());
    spec.tensors.push_back({"lm_head.weight", {spec.vocab_size, spec.hidden_size}});
    spec.order.push_back({false, spec.head});
    return {};
  }

  /// A tensor, or a module of a linear map.
  struct Part {
    std::pair<size_t, uint64_t> place;
    int tensor = -1, linear = -1, module = -1;
    auto operator<=>(const Part&) const = default;
  };

  /// Loads tensors and modules of the layers that `is_wanted` accepts, in their order in the files.
  template <typename Predicate>
  Result<> load(Predicate is_wanted) {
    const ModelSpec& spec = model_->spec_;
    std::vector<Part> parts;
    for (int i = 0; i < static_cast<int>(spec.tensors.size()); ++i) {
      if (is_wanted(spec.tensors[i].layer)) parts.push_back({stored_->place(spec.tensors[i]), i});
    }
    for (int i = 0; i < static_cast<int>(spec.linears.size()); ++i) {
      const auto& modules = spec.linears[i].modules;
      if (!is_wanted(spec.linears[i].layer)) continue;
      for (int m = 0; m < static_cast<int>(modules.size()); ++m) {
        parts.push_back({stored_->place(modules[m]), -1, i, m});
      }
    }
    std::sort(parts.begin(), parts.end());
    for (const Part& part : parts) {
      LORRY_TRY(part.tensor >= 0 ? load_tensor(part.tensor)
                                 : load_module(part.linear, part.module));
    }
    for (size_t i = 0; i < spec.linears.size(); ++i) {
      if (is_wanted(spec.linears[i].layer)) join(model_->linears_[i]);
    }
    return {};
  }

  /// Lets the modules of a map lie one after another in memory, so that their products are one.
  /// Weights that are mapped from their file stay there.
  static void join(std::vector<ops::Weight>& weights) {
    const auto join_field = [&](at::Tensor ops::Weight::*field) {
      std::vector<at::Tensor> parts;
      for (const ops::Weight& weight : weights) {
        const at::Tensor& part = weight.*field;
        if (!part.defined() || !part.storage().resizable())
          return;  // mapped memory has no allocator
        if (part.scalar_type() != weights[0].data.scalar_type()) return;
        parts.push_back(part);
      }
      const at::Tensor joined = at::cat(parts);
      int64_t row = 0;
      for (ops::Weight& weight : weights) {
        weight.*field = joined.narrow(0, row, weight.out).detach();
        row += weight.out;
      }
    };
    const bool dense = std::all_of(weights.begin(), weights.end(), [](const ops::Weight& weight) {
      return weight.format == ops::WeightFormat::kDense;
    });
    if (weights.size() == 1 || !dense) return;
    join_field(&ops::Weight::data);
    join_field(&ops::Weight::bias);
  }

  bool packs() const { return options_.pack && options_.device.is_cpu(); }

  /// Whether a matrix serves in the dtype that it is stored in, which is not the model's.
  bool stays_as_stored(const at::Tensor& stored) const {
    return packs() && options_.dtype == at::kFloat && ops::cpu::reads_rows_of(stored.scalar_type());
  }

  Result<> load_tensor(int index) {
    const TensorSpec& tensor = whole_.tensors[index];
    LORRY_ASSIGN(at::Tensor stored, stored_->tensor(tensor));
    if (model_->shard_) stored = rows_of(stored, {model_->shard_->tensors[index]});
    const bool is_table = index == model_->spec_.embed || index == model_->spec_.head;
    if (is_table && stays_as_stored(stored)) {
      model_->tensors_[index] = stored.contiguous();
      return {};
    }
    const auto dtype = tensor.is_buffer ? at::kFloat : options_.dtype;
    model_->tensors_[index] = stored.to(options_.device, dtype);
    return {};
  }

  Result<> load_module(int index, int m) {
    ops::Weight& weight = model_->linears_[index][m];
    const bool in_block = whole_.linears[index].layer >= 0;
    if (in_block && options_.base_format != ops::WeightFormat::kDense) {
      LORRY_ASSIGN(weight, quantized(index, m));
      return {};
    }
    LORRY_ASSIGN(weight, stored_part(index, m, options_.device));
    if (weight.bias.defined()) weight.bias = weight.bias.to(options_.dtype);
    if (weight.format != ops::WeightFormat::kDense) {
      weight.is_for_serving = options_.pack;
      return {};
    }
    if (stays_as_stored(weight.data)) {
      weight.data = weight.data.contiguous();
      return {};
    }
    weight.data = weight.data.to(options_.dtype);
    if (!packs() || !ops::pays_to_pack(weight)) return {};
    LORRY_ASSIGN(weight, ops::quantize(weight, ops::WeightFormat::kPacked));
    return {};
  }

  /// A module's weight as it is stored, or this rank's part of it.
  Result<ops::Weight> stored_part(int index, int m, at::Device device) {
    const LinearSpec& linear = whole_.linears[index];
    const Module& module = linear.modules[m];
    if (!model_->shard_) return stored_->weight(linear, module, std::nullopt, device);
    // Cut before it is copied to the device, so that of a mapped file only this part is read.
    LORRY_ASSIGN(const auto whole, stored_->weight(linear, module, std::nullopt, at::kCPU));
    LORRY_ASSIGN(ops::Weight part, part_of(whole, model_->shard_->linears[index], size_t(m),
                                           reader_->where() + weight_name(module)));
    for (at::Tensor* field : {&part.data, &part.scales, &part.bias}) {
      if (field->defined()) *field = field->contiguous();
    }
    return part.to(device);
  }

  Result<ops::Weight> quantized(int index, int m) {
    const Module& module = whole_.linears[index].modules[m];
    LORRY_ASSIGN(ops::Weight weight, stored_part(index, m, at::kCPU));
    if (weight.bias.defined()) weight.bias = weight.bias.to(options_.dtype);
    if (weight.format == ops::WeightFormat::kDense) {
      auto narrowed = ops::quantize(weight, options_.base_format);
      if (!narrowed.ok()) {
        return narrowed.error().with_context(reader_->where() + weight_name(module));
      }
      weight = std::move(narrowed).value();
    }
    weight.is_for_serving = options_.pack;
    return weight.to(options_.device);
  }

  /// The dense matrix is not kept: a tied embedding reads the quantised one, but where a rank has a
  /// part of the head and the whole embedding.
  Result<> quantize_head() {
    const at::Tensor own = model_->own_head();
    LORRY_ASSIGN(model_->packed_head_,
                 ops::quantize(ops::Weight::dense(own), options_.head_format));
    model_->packed_head_.is_for_serving = options_.pack;
    at::Tensor& dense = model_->tensors_[model_->spec_.head];
    if (own.size(0) == dense.size(0)) dense = at::Tensor();
    return {};
  }

  Result<> pack_head() {
    const auto head = ops::Weight::dense(model_->own_head());
    if (head.data.scalar_type() != options_.dtype || !ops::pays_to_pack(head)) return {};
    LORRY_ASSIGN(model_->packed_head_, ops::quantize(head, ops::WeightFormat::kPacked));
    return {};
  }

  const LoadOptions options_;
  std::shared_ptr<SafetensorsReader> reader_;
  ModelSpec whole_;  // what the checkpoint holds; model_->spec_ may be a part of it
  std::shared_ptr<Transformer> model_;
  std::unique_ptr<StoredWeights> stored_;
};

namespace {

Error loading_failed(const std::string& dir, const std::exception& e) {
  return unavailable(fmt::format("{}: loading the weights: {}", dir, e.what()));
}

Result<std::shared_ptr<SafetensorsReader>> open_weights(const store::Bucket& bucket,
                                                        const std::string& dir,
                                                        const LoadOptions& options) {
  using Access = SafetensorsReader::Access;
  const bool is_dense = options.base_format == ops::WeightFormat::kDense;
  return SafetensorsReader::open(bucket, dir, "model",
                                 is_dense ? Access::kAnyOrder : Access::kInOrder);
}

}  // namespace

Result<std::shared_ptr<Transformer>> Transformer::load(const store::Bucket& bucket,
                                                       const std::string& dir,
                                                       const LoadOptions& options) {
  LORRY_ASSIGN(ModelSpec spec, load_model_spec(bucket, dir));
  return load(bucket, dir, std::move(spec), options);
}

Result<std::shared_ptr<Transformer>> Transformer::load(const store::Bucket& bucket,
                                                       const std::string& dir, ModelSpec spec,
                                                       const LoadOptions& options) {
  LORRY_ASSIGN(auto ranks, load_ranks(bucket, dir, spec, options, {options.device}));
  return std::move(ranks[0]);
}

Result<std::vector<std::shared_ptr<Transformer>>> Transformer::load_ranks(
    const store::Bucket& bucket, const std::string& dir, const LoadOptions& options,
    const std::vector<at::Device>& devices) {
  LORRY_ASSIGN(const ModelSpec spec, load_model_spec(bucket, dir));
  return load_ranks(bucket, dir, spec, options, devices);
}

Result<std::vector<std::shared_ptr<Transformer>>> Transformer::load_ranks(
    const store::Bucket& bucket, const std::string& dir, const ModelSpec& spec,
    const LoadOptions& options, const std::vector<at::Device>& devices) {
  LORRY_ASSIGN(const auto reader, open_weights(bucket, dir, options));
  const auto count = static_cast<int64_t>(devices.size());
  const auto group = count > 1 ? std::make_shared<ops::RankGroup>(count) : nullptr;
  std::vector<std::shared_ptr<Transformer>> ranks(devices.size());
  const auto load_one = [&](int64_t rank) -> Result<> {
    try {
      const at::NoGradGuard no_grad;
      LoadOptions own = options;
      own.device = devices[static_cast<size_t>(rank)];
      ModelLoader loader(reader, spec, own, group, rank);
      LORRY_ASSIGN(ranks[static_cast<size_t>(rank)], loader.begin());
      return loader.load_blocks();
    } catch (const std::exception& e) {
      return loading_failed(dir, e);
    }
  };
  LORRY_TRY(in_parallel(count, count, load_one));
  return ranks;
}

BlockwiseModel::~BlockwiseModel() = default;

Result<std::unique_ptr<BlockwiseModel>> BlockwiseModel::open(const store::Bucket& bucket,
                                                             const std::string& dir,
                                                             const LoadOptions& options) {
  LORRY_ASSIGN(ModelSpec spec, load_model_spec(bucket, dir));
  LORRY_ASSIGN(auto reader,
               SafetensorsReader::open(bucket, dir, "model", SafetensorsReader::Access::kInOrder));
  try {
    const at::NoGradGuard no_grad;
    std::unique_ptr<BlockwiseModel> blockwise(new BlockwiseModel);
    blockwise->loader_ = std::make_unique<ModelLoader>(std::move(reader), std::move(spec), options);
    LORRY_ASSIGN(blockwise->model_, blockwise->loader_->begin());
    return blockwise;
  } catch (const std::exception& e) {
    return loading_failed(dir, e);
  }
}

Result<> BlockwiseModel::load_block(int64_t layer) {
  if (loaded_ >= 0) loader_->free_block(loaded_);
  loaded_ = layer;
  try {
    const at::NoGradGuard no_grad;
    return loader_->load_block(layer);
  } catch (const std::exception& e) {
    return unavailable(fmt::format("loading block {}: {}", layer, e.what()));
  }
}

Result<> check_base_format(const ModelSpec& spec, ops::WeightFormat format) {
  for (const LinearSpec& linear : spec.linears) {
    if (linear.layer < 0) continue;
    for (const Module& module : linear.modules) {
      LORRY_TRY(ops::check_shape(format, module.rows, linear.in).with_context(module.name));
    }
  }
  return {};
}

Result<> check_checkpoint(const store::Bucket& bucket, const std::string& dir) {
  LORRY_ASSIGN(const ModelSpec spec, load_model_spec(bucket, dir));
  LORRY_ASSIGN(const auto reader, SafetensorsReader::open(bucket, dir, "model"));
  return StoredWeights(*reader, spec).check();
}

int64_t Transformer::weight_bytes() const {
  int64_t bytes = 0;
  const auto add = [&](const at::Tensor& tensor) {
    if (tensor.defined()) bytes += static_cast<int64_t>(tensor.nbytes());
  };
  const auto add_weight = [&](const ops::Weight& weight) {
    for (const auto* part : {&weight.data, &weight.scales, &weight.second_scales, &weight.bias}) {
      add(*part);
    }
  };
  for (const at::Tensor& tensor : tensors_) add(tensor);
  for (const auto& modules : linears_) {
    for (const ops::Weight& weight : modules) add_weight(weight);
  }
  add_weight(packed_head_);
  return bytes;
}

NamedTensors Transformer::named_weights() const {
  NamedTensors weights;
  for (const auto& [is_linear, index] : spec_.order) {
    if (!is_linear) {
      const TensorSpec& tensor = spec_.tensors[index];
      if (!tensor.is_buffer) weights.emplace_back(tensor.name, tensors_[index]);
      continue;
    }
    for (size_t m = 0; m < linears_[index].size(); ++m) {
      const Module& module = spec_.linears[index].modules[m];
      const ops::Weight& weight = linears_[index][m];
      weights.emplace_back(weight_name(module), weight.data);
      if (weight.bias.defined()) weights.emplace_back(bias_name(module), weight.bias);
    }
  }
  return weights;
}

at::Tensor TransformerBase::weight(int64_t linear, int64_t module) const {
  return ops::dequantize(model_.weight(linear, module), at::kFloat);
}
at::Tensor TransformerBase::bias(int64_t linear, int64_t module) const {
  return model_.weight(linear, module).bias;
}
at::Tensor TransformerBase::embed() const { return model_.tensor(model_.spec().embed); }
at::Tensor TransformerBase::head() const { return model_.head_weight(); }

}  // namespace lorry::model

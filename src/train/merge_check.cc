#include "train/merge_check.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <random>

namespace lorry::train {
namespace {

// T tokens, V vocabulary size.

/// Gaps up to this many times the noise are rounding: the merged model and the trained one round in
/// different places, each about as much as the noise says.
constexpr double kSame = 3;
/// Beyond this it is a fault.
constexpr double kWrong = 6;
/// What float32 sums in another order may always differ by.
constexpr double kAlways = 2e-5;

/// Bits of a number's significand.
int precision(at::ScalarType dtype) {
  if (dtype == at::kFloat) return 24;
  return dtype == at::kHalf ? 11 : 8;
}

int precision(std::string_view dtype) {
  if (dtype == "float32") return 24;
  return dtype == "float16" ? 11 : 8;
}

/// Errors of -1, 0 or 1 unit in the last place, with mean 0 and the variance 1/12 of rounding. They
/// come from one tile, laid over all weights with another shift for each part.
class Errors {
 public:
  explicit Errors(at::Device device) {
    std::mt19937_64 generator(0x6c6f727279);
    at::Tensor tile = at::empty({kSize}, at::kFloat);
    float* data = tile.data_ptr<float>();
    for (int64_t i = 0; i < kSize; ++i) {
      const uint64_t draw = generator() % 24;
      data[i] = draw == 0 ? 1.0f : draw == 1 ? -1.0f : 0.0f;
    }
    tile_ = tile.to(device);
  }

  /// A copy of `weight` with errors of `bits` bits of precision.
  at::Tensor applied_to(const at::Tensor& weight, int bits) {
    at::Tensor out = at::empty_like(weight, at::MemoryFormat::Contiguous);
    const at::Tensor from = weight.reshape({-1}), to = out.view({-1});
    for (int64_t begin = 0; begin < from.numel(); begin += kSize) {
      const int64_t n = std::min(kSize, from.numel() - begin);
      const at::Tensor part = from.narrow(0, begin, n).to(at::kFloat);
      const at::Tensor exponent = std::get<1>(at::frexp(part));
      const at::Tensor errors = at::roll(tile_, shift_).narrow(0, 0, n);
      shift_ = (shift_ + 7919) % kSize;
      to.narrow(0, begin, n).copy_(part + at::ldexp(errors, exponent - bits));
    }
    return out;
  }

 private:
  static constexpr int64_t kSize = 1'048'573;  // a prime
  at::Tensor tile_;
  int64_t shift_ = 0;
};

/// Tensors that hold other numbers until it is destroyed.
class Swapped {
 public:
  Swapped() = default;
  Swapped(const Swapped&) = delete;
  Swapped& operator=(const Swapped&) = delete;
  ~Swapped() {
    for (auto& [tensor, before] : tensors_) tensor.set_data(before);
  }
  void swap(at::Tensor tensor, const at::Tensor& numbers) {
    const at::Tensor before = tensor.detach();
    tensor.set_data(numbers);
    tensors_.emplace_back(std::move(tensor), before);
  }

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> tensors_;
};

/// A forward pass, block by block.
class Pass {
 public:
  Pass(const model::Transformer& model, model::AdapterView view, const std::vector<int64_t>& tokens)
      : model_(model),
        view_(std::move(view)),
        attention_({0, static_cast<int64_t>(tokens.size())}),
        ids_(at::tensor(tokens, at::kLong).to(model.device())),
        context_(model.step_context(at::arange(ids_.size(0), ids_.options()), attention_, view_)),
        x_(model.embed(ids_, view_)) {}
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;

  void run_block(int64_t i) { x_ = model_.run_block(i, x_, context_); }
  /// (T, V) in float32 on the CPU.
  at::Tensor logits() const {
    return model_.logits(model_.finish(x_), view_).to(at::kCPU, at::kFloat);
  }

 private:
  const model::Transformer& model_;
  const model::AdapterView view_;
  model::PackedAttention attention_;
  const at::Tensor ids_;
  const model::StepContext context_;
  at::Tensor x_;
};

/// Reads a block before it is run, or does nothing.
using LoadBlock = std::function<Result<>(int64_t layer)>;

Result<> nothing_to_load(int64_t /*layer*/) { return {}; }

model::AdapterView view_of(const std::shared_ptr<const model::LoraAdapter>& adapter) {
  return adapter ? model::AdapterView::one(adapter) : model::AdapterView::none();
}

Result<at::Tensor> logits_of(const model::Transformer& model, const model::AdapterView& view,
                             const std::vector<int64_t>& tokens, const LoadBlock& load_block) {
  Pass pass(model, view, tokens);
  for (int64_t i = 0; i < model.spec().num_hidden_layers(); ++i) {
    LORRY_TRY(load_block(i));
    pass.run_block(i);
  }
  return pass.logits();
}

/// The matrices of a block.
std::vector<at::Tensor> block_matrices(const model::Transformer& model, int64_t layer) {
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  std::vector<at::Tensor> matrices;
  for (const auto& [name, tensor] : model.named_weights()) {
    if (!name.starts_with(prefix) || tensor.dim() < 2 || !tensor.is_floating_point()) {
      continue;  // a quantised weight is not written
    }
    matrices.push_back(tensor);
  }
  return matrices;
}

double rms(const at::Tensor& x) { return x.square().mean().sqrt().item<double>(); }

/// The plain pass and the moved one, a block at a time.
Result<TrainedLogits> run_twice(const model::Transformer& model,
                                const std::shared_ptr<const model::LoraAdapter>& adapter,
                                std::vector<int64_t> input_ids, std::string_view stored_dtype,
                                const LoadBlock& load_block) {
  const int own_bits = precision(model.dtype());
  const int bits = std::min(own_bits, precision(stored_dtype));
  Errors errors(model.device());
  std::vector<std::pair<at::Tensor, at::Tensor>> moved_adapter;  // and what it becomes
  if (adapter) {
    for (const auto& [name, tensor] : adapter->named_parameters()) {
      moved_adapter.emplace_back(tensor, errors.applied_to(tensor, own_bits));
    }
  }
  const auto move_adapter = [&](Swapped& swapped) {
    for (const auto& [tensor, numbers] : moved_adapter) swapped.swap(tensor, numbers);
  };
  Pass plain(model, view_of(adapter), input_ids);
  std::optional<Pass> moved;
  {
    Swapped swapped;
    move_adapter(swapped);
    moved.emplace(model, view_of(adapter), input_ids);
  }
  for (int64_t i = 0; i < model.spec().num_hidden_layers(); ++i) {
    LORRY_TRY(load_block(i));
    plain.run_block(i);
    Swapped swapped;
    move_adapter(swapped);
    for (const at::Tensor& weight : block_matrices(model, i)) {
      swapped.swap(weight, errors.applied_to(weight, bits));
    }
    moved->run_block(i);
  }
  TrainedLogits trained;
  trained.logits = plain.logits();
  const double spread = rms(trained.logits - trained.logits.mean(-1, true));
  trained.spread = spread > 0 ? spread : 1;
  Swapped swapped;
  move_adapter(swapped);
  trained.noise = rms(moved->logits() - trained.logits) / trained.spread;
  trained.input_ids = std::move(input_ids);
  return trained;
}

MergeCheck compare_logits(const TrainedLogits& trained, const at::Tensor& logits) {
  const at::Tensor difference = logits - trained.logits;
  MergeCheck check{rms(difference) / trained.spread, trained.noise,
                   difference.abs().max().item<double>(),
                   static_cast<int64_t>(trained.input_ids.size()), std::nullopt};
  if (trained.on_quantised_base.defined()) {
    check.base_gap = rms(logits - trained.on_quantised_base) / trained.spread;
  }
  return check;
}

LoadBlock loader_of(model::BlockwiseModel& model) {
  return [&model](int64_t layer) { return model.load_block(layer); };
}

}  // namespace

TrainedLogits run_trained(const model::Transformer& model,
                          const std::shared_ptr<const model::LoraAdapter>& adapter,
                          std::vector<int64_t> input_ids, std::string_view stored_dtype) {
  const at::NoGradGuard no_grad;
  return *run_twice(model, adapter, std::move(input_ids), stored_dtype, nothing_to_load);
}

Result<TrainedLogits> run_trained(model::BlockwiseModel& model,
                                  const std::shared_ptr<const model::LoraAdapter>& adapter,
                                  std::vector<int64_t> input_ids, std::string_view stored_dtype) {
  const at::NoGradGuard no_grad;
  return run_twice(model.model(), adapter, std::move(input_ids), stored_dtype, loader_of(model));
}

at::Tensor answer(const model::Transformer& model,
                  const std::shared_ptr<const model::LoraAdapter>& adapter,
                  const std::vector<int64_t>& input_ids) {
  const at::NoGradGuard no_grad;
  return *logits_of(model, view_of(adapter), input_ids, nothing_to_load);
}

MergeVerdict MergeCheck::verdict() const {
  if (gap <= std::max(kAlways, kSame * noise)) return MergeVerdict::kSame;
  // Written so that a gap that is no number is wrong.
  return gap <= kWrong * noise ? MergeVerdict::kDoubtful : MergeVerdict::kWrong;
}

std::string MergeCheck::describe() const {
  return fmt::format("{:.3g} (relative rms), where rounding alone makes {:.3g}", gap, noise);
}

MergeCheck compare(const TrainedLogits& trained, const model::Transformer& exported) {
  return compare_logits(trained, answer(exported, nullptr, trained.input_ids));
}

Result<MergeCheck> compare(const TrainedLogits& trained, model::BlockwiseModel& exported) {
  const at::NoGradGuard no_grad;
  LORRY_ASSIGN(const at::Tensor logits, logits_of(exported.model(), model::AdapterView::none(),
                                                  trained.input_ids, loader_of(exported)));
  return compare_logits(trained, logits);
}

}  // namespace lorry::train

#include "train/merge_check.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
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

/// Logits (T, V) in float32 on the CPU. `around_block(i, run)` calls run() once.
template <typename AroundBlock>
at::Tensor logits_of(const model::Transformer& model, const model::AdapterView& view,
                     const std::vector<int64_t>& tokens, AroundBlock&& around_block) {
  const at::Tensor ids = at::tensor(tokens, at::kLong).to(model.device());
  model::PackedAttention attention({0, ids.size(0)});
  const auto context = model.step_context(at::arange(ids.size(0), ids.options()), attention, view);
  at::Tensor x = model.embed(ids, view);
  for (int64_t i = 0; i < model.spec().num_hidden_layers(); ++i) {
    around_block(i, [&] { x = model.run_block(i, x, context); });
  }
  return model.logits(model.finish(x), view).to(at::kCPU, at::kFloat);
}

at::Tensor logits_of(const model::Transformer& model, const model::AdapterView& view,
                     const std::vector<int64_t>& tokens) {
  return logits_of(model, view, tokens, [](int64_t, auto&& run) { run(); });
}

/// The matrices of each block.
std::vector<std::vector<at::Tensor>> block_matrices(const model::Transformer& model) {
  constexpr std::string_view kPrefix = "model.layers.";
  std::vector<std::vector<at::Tensor>> blocks(model.spec().num_hidden_layers());
  for (const auto& [name, tensor] : model.named_weights()) {
    if (!name.starts_with(kPrefix) || tensor.dim() < 2 || !tensor.is_floating_point()) {
      continue;  // a quantised weight is not written
    }
    blocks[std::stoul(name.substr(kPrefix.size()))].push_back(tensor);
  }
  return blocks;
}

double rms(const at::Tensor& x) { return x.square().mean().sqrt().item<double>(); }

}  // namespace

TrainedLogits run_trained(const model::Transformer& model,
                          const std::shared_ptr<const model::LoraAdapter>& adapter,
                          std::vector<int64_t> input_ids, std::string_view stored_dtype) {
  const at::NoGradGuard no_grad;
  const auto view = adapter ? model::AdapterView::one(adapter) : model::AdapterView::none();
  TrainedLogits trained;
  trained.logits = logits_of(model, view, input_ids);
  const double spread = rms(trained.logits - trained.logits.mean(-1, true));
  trained.spread = spread > 0 ? spread : 1;

  const auto blocks = block_matrices(model);
  const int own_bits = precision(model.dtype());
  const int bits = std::min(own_bits, precision(stored_dtype));
  Errors errors(model.device());
  Swapped adapter_errors;
  if (adapter) {
    for (const auto& [name, tensor] : adapter->named_parameters()) {
      adapter_errors.swap(tensor, errors.applied_to(tensor, own_bits));
    }
  }
  const at::Tensor moved = logits_of(model, view, input_ids, [&](int64_t i, auto&& run) {
    Swapped block_errors;
    for (const at::Tensor& weight : blocks[i]) {
      block_errors.swap(weight, errors.applied_to(weight, bits));
    }
    run();
  });
  trained.noise = rms(moved - trained.logits) / trained.spread;
  trained.input_ids = std::move(input_ids);
  return trained;
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
  const at::NoGradGuard no_grad;
  const at::Tensor difference =
      logits_of(exported, model::AdapterView::none(), trained.input_ids) - trained.logits;
  return {rms(difference) / trained.spread, trained.noise, difference.abs().max().item<double>(),
          static_cast<int64_t>(trained.input_ids.size())};
}

}  // namespace lorry::train

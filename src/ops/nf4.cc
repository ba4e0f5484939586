#include "ops/nf4.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <vector>

#include "ops/cpu_loops.h"
#include "ops/cuda_module.h"
#include "ops/weight_cpu.h"

namespace lorry::ops {
namespace {

/// Numbers that are worked on at a time.
constexpr int64_t kChunk = 1 << 20;

/// The 256 numbers of an 8-bit scale, ascending: 0, 1, and for each power of ten from 1e-6 to 1 the
/// middles of 2^0 to 2^6 equal parts of [0.1, 1], with both signs.
/// Source: Dettmers 2015, arXiv:1511.04561; bitsandbytes' create_dynamic_map.
const at::Tensor& scale_numbers() {
  static const at::Tensor kNumbers = [] {
    std::vector<at::Tensor> parts{at::tensor({0.0f, 1.0f})};
    for (int i = 0; i < 7; ++i) {
      const at::Tensor edges = at::linspace(0.1, 1, (1 << i) + 1, at::kFloat);
      const int64_t n = edges.numel() - 1;
      const at::Tensor middles = (edges.narrow(0, 0, n) + edges.narrow(0, 1, n)) / 2;
      parts.push_back(middles * std::pow(10.0, i - 6));
      parts.push_back(-parts.back());
    }
    return std::get<0>(at::cat(parts).sort());
  }();
  return kNumbers;
}

/// The nearest of these to the points of a grid over [-1, 1]: bitsandbytes rounds a scale to the
/// grid first, and a point halfway between two numbers to the lower one.
class ScaleCodes {
 public:
  ScaleCodes() : codes_(kPoints) {
    const float* numbers = cpu::data<float>(scale_numbers());
    int code = 0;
    for (int i = 0; i < kPoints; ++i) {
      const float point = 2.0f * static_cast<float>(i) / (kPoints - 1) - 1.0f;
      while (code < 255 && (numbers[code] + numbers[code + 1]) * 0.5f < point) ++code;
      codes_[i] = static_cast<uint8_t>(code);
    }
  }
  /// Of a number in [-1, 1].
  uint8_t operator[](float x) const {
    x = std::clamp(x, -1.0f, 1.0f);
    return codes_[static_cast<uint16_t>((x + 1.0f) * 0.5f * (kPoints - 1) + 0.5f)];
  }

 private:
  static constexpr int kPoints = 65536;
  std::vector<uint8_t> codes_;
};

/// What the blocks' scales become: codes, and {their mean, the largest of each kNf4ScaleBlock}.
struct DoubleScales {
  at::Tensor codes, largest;
};

/// libtorch's mean, which another number of threads would round differently, were it not for the
/// parallel region around it.
at::Tensor mean_on_one_thread(const at::Tensor& x) {
  at::Tensor mean;
  at::parallel_for(0, 2, /*grain_size=*/1, [&](int64_t begin, int64_t) {
    if (begin == 0) mean = x.mean();
  });
  return mean;
}

DoubleScales quantize_scales(const at::Tensor& scales) {
  static const ScaleCodes kCodes;
  const int64_t n = scales.numel(), blocks = (n + kNf4ScaleBlock - 1) / kNf4ScaleBlock;
  const at::Tensor mean = mean_on_one_thread(scales), centred = scales - mean;
  DoubleScales out{at::zeros({n}, at::kByte), at::empty({1 + blocks}, at::kFloat)};
  float* largest = cpu::mutable_data<float>(out.largest);
  *largest++ = mean.item<float>();
  const float* x = cpu::data<float>(centred);
  auto* codes = cpu::mutable_data<uint8_t>(out.codes);
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = b * kNf4ScaleBlock, end = std::min(n, begin + kNf4ScaleBlock);
    largest[b] = 0;
    for (int64_t i = begin; i < end; ++i) largest[b] = std::max(largest[b], std::fabs(x[i]));
    if (largest[b] == 0) continue;
    const float inverse = 1.0f / largest[b];
    for (int64_t i = begin; i < end; ++i) codes[i] = kCodes[x[i] * inverse];
  }
  return out;
}

/// On the weight's device, once for each.
at::Tensor on_device(const at::Tensor& table, std::vector<at::Tensor>& copies, at::Device device) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  for (const at::Tensor& copy : copies) {
    if (copy.device() == device) return copy;
  }
  return copies.emplace_back(table.to(device));
}

/// (256, 2): the numbers of a byte's two codes.
at::Tensor pair_numbers_on(at::Device device) {
  static auto* copies = new std::vector<at::Tensor>;
  static const at::Tensor kPairs = [] {
    const at::Tensor numbers = at::tensor(at::ArrayRef<float>(cpu::kNf4Numbers, 16));
    return at::stack({numbers.repeat_interleave(16), numbers.repeat({16})}, 1);
  }();
  return on_device(kPairs, *copies, device);
}

/// (blocks) float32.
at::Tensor block_scales(const Weight& w) {
  const int64_t n = w.scales.numel();
  const at::Tensor largest = w.second_scales.narrow(0, 1, w.second_scales.numel() - 1);
  const at::Tensor numbers =
      nf4_scale_numbers(w.scales.device()).index_select(0, w.scales.to(at::kInt));
  const at::Tensor of_each =
      largest.unsqueeze(1).expand({largest.numel(), kNf4ScaleBlock}).flatten().narrow(0, 0, n);
  return (numbers * of_each).add_(w.second_scales.select(0, 0));
}

void widen_on_cpu(const Weight& w, at::Tensor& out) {
  const at::Tensor scales = block_scales(w);
  cpu::with_products_dtype(out, [&](auto* numbers) {
    cpu::decode_nf4(cpu::data<uint8_t>(w.data), cpu::data<float>(scales), scales.numel(), numbers);
  });
}

}  // namespace

at::Tensor nf4_scale_numbers(at::Device device) {
  static auto* copies = new std::vector<at::Tensor>;  // for the life of the program: a CUDA tensor
  return on_device(scale_numbers(), *copies, device);
}

int64_t nf4_bytes(int64_t numbers) {
  const int64_t blocks = numbers / kNf4Block;
  const int64_t second = (blocks + kNf4ScaleBlock - 1) / kNf4ScaleBlock;
  return numbers / 2 + blocks + 4 * (1 + second);
}

Result<Weight> to_nf4(const Weight& w) {
  const int64_t blocks = w.out * w.in / kNf4Block;
  at::Tensor codes = at::empty({w.out * w.in / 2}, at::kByte);
  at::Tensor largest = at::empty({blocks}, at::kFloat);
  // Whole blocks, wherever rows end.
  const int64_t rows_at_a_time = std::max<int64_t>(1, kChunk / w.in / kNf4Block) * kNf4Block;
  for (int64_t row = 0; row < w.out; row += rows_at_a_time) {
    const int64_t rows = std::min(rows_at_a_time, w.out - row);
    const at::Tensor wide = w.data.narrow(0, row, rows).to(at::kCPU, at::kFloat).contiguous();
    const int64_t first = row * w.in / kNf4Block;
    cpu::encode_nf4(cpu::data<float>(wide), wide.numel() / kNf4Block,
                    cpu::mutable_data<uint8_t>(codes) + first * kNf4Block / 2,
                    cpu::mutable_data<float>(largest) + first);
  }
  if (!at::isfinite(largest).all().item<bool>()) {
    return invalid_input("it holds NaN or infinity");
  }
  const DoubleScales scales = quantize_scales(largest);
  const at::Device device = w.data.device();
  return Weight{WeightFormat::kNf4,        w.out, w.in, codes.to(device), scales.codes.to(device),
                scales.largest.to(device), w.bias};
}

void widen_nf4(const Weight& weight, at::Tensor& out) {
  if (weight.data.is_cpu()) return widen_on_cpu(weight, out);
  const CudaModule* const module = cuda_kernels(weight.data.device());
  if (module == nullptr) return widen_nf4_plain(weight, out);
  module->dequantize.nf4(weight, cpu::kNf4Numbers, nf4_scale_numbers(weight.data.device()), out);
}

void widen_nf4_plain(const Weight& w, at::Tensor& out) {
  const at::Tensor scales = block_scales(w), pairs = pair_numbers_on(w.data.device());
  const at::Tensor blocks = out.view({-1, kNf4Block});
  const at::Tensor codes = w.data.view({-1, kNf4Block / 2});
  constexpr int64_t kBlocks = 4 * kChunk / kNf4Block;
  for (int64_t begin = 0; begin < blocks.size(0); begin += kBlocks) {
    const int64_t n = std::min(kBlocks, blocks.size(0) - begin);
    const at::Tensor numbers =
        pairs.index_select(0, codes.narrow(0, begin, n).flatten().to(at::kInt));
    blocks.narrow(0, begin, n)
        .copy_(numbers.view({n, kNf4Block}).mul_(scales.narrow(0, begin, n).unsqueeze(1)));
  }
}

}  // namespace lorry::ops

#include "train/micro_batch_size.h"

#include <algorithm>

namespace lorry::train {
namespace {

constexpr int64_t kCpuTokens = 2048;  // the matrix rate is flat from here on
constexpr int64_t kGpuTokens = 16384;
constexpr int64_t kCpuBytes = int64_t{6} << 30;
constexpr int64_t kGpuBytes = int64_t{16} << 30;

/// MLP-sized numbers that one token passes through in a block.
int64_t mlp_width(const model::BlockSpec& block) {
  if (const auto* mlp = std::get_if<model::MlpSpec>(&block.mlp)) return mlp->width;
  const auto& moe = std::get<model::MoeSpec>(block.mlp);
  return moe.active * moe.experts[0].width + (moe.shared ? moe.shared->width : 0);
}

/// Bytes of 16-bit activations a token, roughly: 10 hidden-sized and 5 MLP-sized numbers a block.
int64_t rough_activation_bytes(const model::ModelSpec& spec) {
  int64_t numbers = 0;
  for (const auto& block : spec.layers) numbers += 10 * spec.hidden_size + 5 * mlp_width(block);
  return 2 * numbers;
}

}  // namespace

int64_t micro_batch_tokens(const model::ModelSpec& spec, at::Device device) {
  const int64_t bytes = device.is_cpu() ? kCpuBytes : kGpuBytes;
  const int64_t most = device.is_cpu() ? kCpuTokens : kGpuTokens;
  return std::clamp<int64_t>(bytes / std::max<int64_t>(1, rough_activation_bytes(spec)), 256, most);
}

}  // namespace lorry::train

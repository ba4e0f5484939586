#include "train/run_size.h"

#include <algorithm>

namespace lorry::train {
namespace {

constexpr int64_t kCpuTokens = 2048;  // the matrix rate is flat from here on
constexpr int64_t kGpuTokens = 16384;
constexpr int64_t kCpuBytes = int64_t{6} << 30;
constexpr int64_t kGpuBytes = int64_t{16} << 30;

}  // namespace

int64_t activation_bytes(const model::ModelConfig& config) {
  // About 10 hidden-sized and 5 MLP-sized activations a block, of two bytes.
  return 2 * config.num_hidden_layers * (10 * config.hidden_size + 5 * config.intermediate_size);
}

int64_t run_tokens(const model::ModelConfig& config, at::Device device) {
  const int64_t bytes = device.is_cpu() ? kCpuBytes : kGpuBytes;
  const int64_t most = device.is_cpu() ? kCpuTokens : kGpuTokens;
  return std::clamp<int64_t>(bytes / std::max<int64_t>(1, activation_bytes(config)), 256, most);
}

}  // namespace lorry::train

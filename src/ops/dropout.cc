#include "ops/dropout.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

namespace lorry::ops {
namespace {

// Both ways compute the same numbers: 32 bits at a time, on a GPU inside of int64, of which a
// product keeps the low 32 bits right.
constexpr int64_t kLow = 0xffffffff;
constexpr int64_t kColumn = 0x9e3779b1, kFirst = 0x7feb352d, kSecond = 0x846ca68b;

uint32_t mixed(uint32_t x) {
  x ^= x >> 16;
  x *= static_cast<uint32_t>(kFirst);
  x ^= x >> 15;
  x *= static_cast<uint32_t>(kSecond);
  return x ^ (x >> 16);
}

/// The same of numbers in [0, 2^32).
at::Tensor mixed(at::Tensor x) {
  x = at::bitwise_xor(x, at::bitwise_right_shift(x, 16));
  x = at::bitwise_and(x * kFirst, kLow);
  x = at::bitwise_xor(x, at::bitwise_right_shift(x, 15));
  x = at::bitwise_and(x * kSecond, kLow);
  return at::bitwise_xor(x, at::bitwise_right_shift(x, 16));
}

uint32_t module_bits(uint64_t module) {
  return mixed(static_cast<uint32_t>(module) ^ mixed(static_cast<uint32_t>(module >> 32) + 1));
}

uint32_t row_bits(int64_t key, uint32_t module) {
  const auto bits = static_cast<uint64_t>(key);
  return mixed(static_cast<uint32_t>(bits >> 32) ^ mixed(static_cast<uint32_t>(bits) ^ module));
}

/// Numbers below it are dropped.
uint32_t threshold(double p) { return static_cast<uint32_t>(std::floor(p * 4294967296.0)); }

at::Tensor mask_cpu(const at::Tensor& keys, int64_t columns, double p, uint64_t module) {
  const at::Tensor from = keys.contiguous();
  at::Tensor mask = at::empty({from.numel(), columns}, at::kBool);
  const int64_t* key = from.const_data_ptr<int64_t>();
  bool* out = mask.data_ptr<bool>();
  const uint32_t salt = module_bits(module), dropped = threshold(p);
  at::parallel_for(0, from.numel(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const uint32_t row = row_bits(key[t], salt);
      for (int64_t c = 0; c < columns; ++c) {
        const auto place = static_cast<uint32_t>(c) * static_cast<uint32_t>(kColumn);
        out[t * columns + c] = mixed(row + place) >= dropped;
      }
    }
  });
  return mask;
}

/// Of any device, by tensor operations.
at::Tensor mask_tensors(const at::Tensor& keys, int64_t columns, double p, uint64_t module) {
  const at::Tensor low = at::bitwise_and(keys, kLow);
  const at::Tensor high = at::bitwise_and(at::bitwise_right_shift(keys, 32), kLow);
  const auto salt = static_cast<int64_t>(module_bits(module));
  const at::Tensor rows = mixed(at::bitwise_xor(high, mixed(at::bitwise_xor(low, salt))));
  const at::Tensor places = at::bitwise_and(at::arange(columns, keys.options()) * kColumn, kLow);
  const at::Tensor sums = at::bitwise_and(rows.unsqueeze(1) + places.unsqueeze(0), kLow);
  return mixed(sums) >= static_cast<int64_t>(threshold(p));
}

}  // namespace

at::Tensor dropout_mask(const at::Tensor& keys, int64_t columns, double p, uint64_t module) {
  const at::NoGradGuard no_grad;
  return keys.is_cpu() ? mask_cpu(keys, columns, p, module)
                       : mask_tensors(keys, columns, p, module);
}

at::Tensor dropout(const at::Tensor& x, double p, const at::Tensor& keys, uint64_t module) {
  if (p <= 0) return x;
  const at::Tensor mask = dropout_mask(keys, x.size(-1), p, module);
  return x * mask.to(x.scalar_type()).mul_(1 / (1 - p));
}

}  // namespace lorry::ops

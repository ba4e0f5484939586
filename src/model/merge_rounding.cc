#include "model/merge_rounding.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <type_traits>
#include <vector>

#include "base/mix.h"

namespace lorry::model {
namespace {

/// How far from 1 the kept share of a change may be.
constexpr double kShareOff = 0.05;
/// Numbers that a thread takes at once. Sums are made chunk by chunk, so that their order, and with
/// it the choice of the rounding, does not depend on the number of threads.
constexpr int64_t kChunk = 1 << 16;

template <class F>
void for_chunks(int64_t size, const F& run) {
  at::parallel_for(0, (size + kChunk - 1) / kChunk, 1, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) run(c, c * kChunk, std::min(size, (c + 1) * kChunk));
  });
}

/// Rounds to nearest; returns the share of the change that is kept (1 where nothing changes).
template <class T>
double round_to_nearest(const T* before, const float* after, T* rounded, int64_t size) {
  std::vector<double> kept((size + kChunk - 1) / kChunk), whole(kept.size());
  for_chunks(size, [&](int64_t chunk, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      rounded[i] = static_cast<T>(after[i]);
      const double from = static_cast<float>(before[i]), change = after[i] - from;
      kept[chunk] += (static_cast<float>(rounded[i]) - from) * change;
      whole[chunk] += change * change;
    }
  });
  double kept_sum = 0, whole_sum = 0;
  for (size_t c = 0; c < kept.size(); ++c) {
    kept_sum += kept[c];
    whole_sum += whole[c];
  }
  return whole_sum > 0 ? kept_sum / whole_sum : 1;
}

/// Adds a random number below one unit in the last place of T to the float's bits, and cuts off
/// what T does not hold. (float16 below 6e-5 holds less than what is left; that is rounded to
/// nearest.)
template <class T>
void round_at_random(const float* after, T* rounded, int64_t size, uint64_t seed) {
  constexpr uint32_t kBelow = std::is_same_v<T, at::Half> ? 0x1fff : 0xffff;
  for_chunks(size, [&](int64_t /*chunk*/, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (!std::isfinite(after[i])) continue;  // as rounded to nearest
      const uint32_t bits = std::bit_cast<uint32_t>(after[i]);
      const uint32_t moved =
          (bits + (static_cast<uint32_t>(mix(seed, static_cast<uint64_t>(i))) & kBelow)) & ~kBelow;
      rounded[i] = static_cast<T>(std::bit_cast<float>(moved));
    }
  });
}

template <class T>
at::Tensor rounded_to(const at::Tensor& before, const at::Tensor& after, uint64_t seed) {
  at::Tensor out =
      at::empty(after.sizes(), before.options().device(at::kCPU), at::MemoryFormat::Contiguous);
  const float* from = after.const_data_ptr<float>();
  T* to = out.data_ptr<T>();
  const double share = round_to_nearest(before.const_data_ptr<T>(), from, to, out.numel());
  if (std::abs(share - 1) > kShareOff) round_at_random(from, to, out.numel(), seed);
  return out;
}

}  // namespace

at::Tensor round_trained(const at::Tensor& before, const at::Tensor& after, uint64_t seed) {
  const at::Tensor from = before.to(at::kCPU).contiguous(), to = after.to(at::kCPU).contiguous();
  const at::ScalarType dtype = before.scalar_type();
  if (dtype == at::kBFloat16) return rounded_to<at::BFloat16>(from, to, seed);
  if (dtype == at::kHalf) return rounded_to<at::Half>(from, to, seed);
  return to.to(dtype);
}

}  // namespace lorry::model

// residual_rms_norm.h on a CPU: a row is read once and stays in the first cache until it is scaled.
#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <cmath>

#include "ops/cpu_loops.h"
#include "ops/residual_rms_norm.h"

namespace lorry::ops {
namespace cpu {
namespace {

/// Rows are cut into at most this many parts for d_weight, whatever the number of threads, so that
/// the order of its sums depends on the rows alone.
constexpr int64_t kWeightParts = 64;

/// What the quotient is multiplied by (RmsNormKind) and whether it is rounded before.
struct Factor {
  float offset;
  bool rounds_quotient;

  explicit Factor(RmsNormKind kind)
      : offset(kind == RmsNormKind::kOnePlusWeight ? 1.0f : 0.0f),
        rounds_quotient(kind == RmsNormKind::kPlain) {}
};

/// The rows of one call. Null pointers: residual (and sum), d_sum and d_weight that are not there.
template <typename T>
struct ForwardRow {
  const T *x, *residual, *weight;
  T *sum, *normed;
};
template <typename T>
struct BackwardRow {
  const T *sum, *weight, *d_sum, *d_normed;
  T* d_x;
  float* d_weight;  ///< added to
};

template <typename T>
LORRY_INLINE void forward_row(const ForwardRow<T>& row, int64_t n, float eps, Factor factor) {
  const T* x = row.x;
  if (row.residual != nullptr) {
    for (int64_t i = 0; i < n; ++i) {
      row.sum[i] = narrow<T>(widen(row.x[i]) + widen(row.residual[i]));
    }
    x = row.sum;
  }
  const float squares = lane_sum(n, [&](int64_t i) { return widen(x[i]) * widen(x[i]); });
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
  if (factor.rounds_quotient) {
    for (int64_t i = 0; i < n; ++i) {
      row.normed[i] = narrow<T>(widen(row.weight[i]) * rounded<T>(widen(x[i]) * scale));
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    row.normed[i] = narrow<T>((factor.offset + widen(row.weight[i])) * (widen(x[i]) * scale));
  }
}

/// d_x = scale * (g - sum * pull) + d_sum with g = d_normed * factor, pull = scale^2 mean(g * sum).
template <typename T>
LORRY_INLINE void backward_row(const BackwardRow<T>& row, int64_t n, float eps, Factor factor) {
  const auto x = [&](int64_t i) { return widen(row.sum[i]); };
  const auto grad = [&](int64_t i) {
    return widen(row.d_normed[i]) * (factor.offset + widen(row.weight[i]));
  };
  const float squares = lane_sum(n, [&](int64_t i) { return x(i) * x(i); });
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
  const float along = lane_sum(n, [&](int64_t i) { return grad(i) * x(i); });
  const float pull = along * scale * scale / static_cast<float>(n);
  if (row.d_sum == nullptr) {
    for (int64_t i = 0; i < n; ++i) row.d_x[i] = narrow<T>(scale * (grad(i) - x(i) * pull));
  } else {
    for (int64_t i = 0; i < n; ++i) {
      row.d_x[i] = narrow<T>(scale * (grad(i) - x(i) * pull) + widen(row.d_sum[i]));
    }
  }
  if (row.d_weight == nullptr) return;
  if (factor.rounds_quotient) {
    for (int64_t i = 0; i < n; ++i) {
      row.d_weight[i] += widen(row.d_normed[i]) * rounded<T>(x(i) * scale);
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i) row.d_weight[i] += widen(row.d_normed[i]) * (x(i) * scale);
}

// One function a type, since instruction sets are chosen by function; overloads, so that the
// callers below are written once.
LORRY_CPU_CLONES void run(const ForwardRow<float>& row, int64_t n, float eps, Factor factor) {
  forward_row(row, n, eps, factor);
}
LORRY_CPU_CLONES void run(const ForwardRow<Bf16>& row, int64_t n, float eps, Factor factor) {
  forward_row(row, n, eps, factor);
}
LORRY_CPU_CLONES void run(const BackwardRow<float>& row, int64_t n, float eps, Factor factor) {
  backward_row(row, n, eps, factor);
}
LORRY_CPU_CLONES void run(const BackwardRow<Bf16>& row, int64_t n, float eps, Factor factor) {
  backward_row(row, n, eps, factor);
}

template <typename T>
const T* at_row(const at::Tensor& x, int64_t row, int64_t n) {
  return x.defined() ? data<T>(x) + row * n : nullptr;
}
template <typename T>
T* at_row(at::Tensor& x, int64_t row, int64_t n) {
  return x.defined() ? mutable_data<T>(x) + row * n : nullptr;
}

ResidualRmsNorm forward(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight,
                        double eps, RmsNormKind kind) {
  RECORD_FUNCTION("lorry::rms_norm", {});
  ResidualRmsNorm out{residual.defined() ? at::empty_like(x) : at::Tensor(), at::empty_like(x)};
  const int64_t n = x.size(-1);
  const Factor factor(kind);
  dispatch(x, [&](auto type) {
    using T = decltype(type);
    for_rows(x.numel() / n, n, [&](int64_t row) {
      run(ForwardRow<T>{at_row<T>(x, row, n), at_row<T>(residual, row, n), data<T>(weight),
                        at_row<T>(out.sum, row, n), at_row<T>(out.normed, row, n)},
          n, static_cast<float>(eps), factor);
    });
  });
  return out;
}

RmsNormGradients backward(const at::Tensor& sum, const at::Tensor& weight, const at::Tensor& d_sum,
                          const at::Tensor& d_normed, double eps, RmsNormKind kind,
                          bool wants_weight) {
  RECORD_FUNCTION("lorry::rms_norm_backward", {});
  const int64_t n = sum.size(-1), rows = sum.numel() / n;
  const int64_t rows_a_part =
      wants_weight ? std::max<int64_t>((rows + kWeightParts - 1) / kWeightParts, 1) : 1;
  const int64_t parts = (rows + rows_a_part - 1) / rows_a_part;
  at::Tensor d_x = at::empty_like(sum);
  at::Tensor d_parts = wants_weight ? at::zeros({parts, n}, at::kFloat) : at::Tensor();
  const Factor factor(kind);
  dispatch(sum, [&](auto type) {
    using T = decltype(type);
    for_rows(parts, rows_a_part * n, [&](int64_t part) {
      const int64_t end = std::min(rows, (part + 1) * rows_a_part);
      for (int64_t row = part * rows_a_part; row < end; ++row) {
        run(BackwardRow<T>{at_row<T>(sum, row, n), data<T>(weight), at_row<T>(d_sum, row, n),
                           at_row<T>(d_normed, row, n), at_row<T>(d_x, row, n),
                           at_row<float>(d_parts, part, n)},
            n, static_cast<float>(eps), factor);
      }
    });
  });
  at::Tensor d_weight;
  if (wants_weight) d_weight = d_parts.sum(0).to(weight.scalar_type());
  return {d_x, d_weight};
}

}  // namespace
}  // namespace cpu

const RmsNormImplementation kCpuRmsNorm = {&cpu::forward, &cpu::backward};

}  // namespace lorry::ops

// Kernels of gate.h for CUDA devices: a thread for each pack of 16 bytes.
//
// Bound by memory. Bytes a number of the result, e the element size: forward 3 e, backward 5 e (the
// activation is computed again). libtorch's ops move 5 e in two launches and 12 e in four. Rounded
// where those round: the activation, then the product.
#include "ops/gate_cuda.h"

#include "ops/cuda_kernel.h"

namespace {

using namespace lorry::ops;          // NOLINT: this file is one name space of kernels
using namespace lorry::ops::device;  // NOLINT

enum Kind { kSilu, kGeluTanh, kGelu, kClampedSilu };  // as Activation::Kind

/// An activation and its derivative.
struct Activated {
  float value, slope;
};

__device__ Activated silu(float x, float alpha) {
  const float s = 1.0f / (1.0f + expf(-alpha * x));
  return {x * s, s * (1.0f + alpha * x * (1.0f - s))};
}

__device__ Activated gelu_tanh(float x) {
  constexpr float kBeta = 0.7978845608028654f, kKappa = 0.044715f;  // sqrt(2 / pi)
  const float t = tanhf(kBeta * (x + kKappa * x * x * x));
  const float inner = kBeta * (1.0f + 3.0f * kKappa * x * x);
  return {0.5f * x * (1.0f + t), 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner};
}

__device__ Activated gelu(float x) {
  constexpr float kRootHalf = 0.7071067811865476f, kDensity = 0.3989422804014327f;
  const float below = 0.5f * (1.0f + erff(x * kRootHalf));
  return {x * below, below + x * kDensity * expf(-0.5f * x * x)};
}

/// Of the gate's number: clamped first for kClampedSilu, whose slope is 0 beyond the limit.
__device__ Activated activate(float x, int kind, float alpha, float limit) {
  if (kind == kSilu) return silu(x, 1.0f);
  if (kind == kGeluTanh) return gelu_tanh(x);
  if (kind == kGelu) return gelu(x);
  if (x <= limit) return silu(x, alpha);
  return {silu(limit, alpha).value, x > limit ? 0.0f : x};  // NaN stays NaN
}

/// What the activation is multiplied by.
__device__ float factor(float up, int kind, float limit) {
  if (kind != kClampedSilu) return up;
  return (up < -limit ? -limit : up > limit ? limit : up) + 1.0f;
}

/// Where in its row and in which row this thread's pack is.
struct Place {
  uint32_t row, column;
  template <typename Arguments>
  __device__ Place(const Arguments& args, int n) {
    const uint32_t packs = args.width / n, index = flat_index();
    row = index / packs;
    column = index % packs * n;
  }
};

template <typename T, int n>
__device__ void forward(const GateArguments& args) {
  const Place place(args, n);
  if (place.row >= static_cast<uint32_t>(args.rows)) return;
  const auto gate =
      load<n>(static_cast<const T*>(args.gate) + place.row * args.gate_row + place.column);
  const auto up = load<n>(static_cast<const T*>(args.up) + place.row * args.up_row + place.column);
  Pack<T, n> out;
#pragma unroll
  for (int j = 0; j < n; ++j) {
    const float act = activate(widen(gate.values[j]), args.kind, args.alpha, args.limit).value;
    out.values[j] = narrow<T>(rounded<T>(act) * factor(widen(up.values[j]), args.kind, args.limit));
  }
  const int64_t start = static_cast<int64_t>(place.row) * args.width;
  store(static_cast<T*>(args.out) + start + place.column, out);
}

template <typename T, int n>
__device__ void backward(const GateBackwardArguments& args) {
  const Place place(args, n);
  if (place.row >= static_cast<uint32_t>(args.rows)) return;
  const int64_t start = static_cast<int64_t>(place.row) * args.width;
  const auto grad = load<n>(static_cast<const T*>(args.grad) + start + place.column);
  const auto gate =
      load<n>(static_cast<const T*>(args.gate) + place.row * args.gate_row + place.column);
  const auto up = load<n>(static_cast<const T*>(args.up) + place.row * args.up_row + place.column);
  Pack<T, n> d_gate, d_up;
#pragma unroll
  for (int j = 0; j < n; ++j) {
    const float d = widen(grad.values[j]), u = widen(up.values[j]);
    const Activated act = activate(widen(gate.values[j]), args.kind, args.alpha, args.limit);
    const bool passes = args.kind != kClampedSilu || (u >= -args.limit && u <= args.limit);
    d_gate.values[j] = narrow<T>(rounded<T>(d * factor(u, args.kind, args.limit)) * act.slope);
    d_up.values[j] = narrow<T>(passes ? d * rounded<T>(act.value) : 0.0f);
  }
  store(static_cast<T*>(args.d_gate) + place.row * args.d_gate_row + place.column, d_gate);
  store(static_cast<T*>(args.d_up) + place.row * args.d_up_row + place.column, d_up);
}

}  // namespace

// The names that gate_cuda.cc looks up: gate_{forward, backward}_{dtype}_{scalar, vector}.
#define LORRY_GATE_KERNELS(dtype, T, layout, n)                                                  \
  extern "C" __global__ void gate_forward_##dtype##_##layout(LORRY_ARGUMENTS(GateArguments) a) { \
    forward<T, n>(a);                                                                            \
  }                                                                                              \
  extern "C" __global__ void gate_backward_##dtype##_##layout(                                   \
      LORRY_ARGUMENTS(GateBackwardArguments) a) {                                                \
    backward<T, n>(a);                                                                           \
  }

LORRY_FOR_LAYOUTS(LORRY_GATE_KERNELS)

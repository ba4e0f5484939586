// Rates of the CUDA kernels beside libtorch's own, and beside a copy, which is the most that memory
// gives. Prints RESULT lines (run.py): microseconds, GB/s of the bytes that the kernel must move,
// and how many times as long libtorch's operations take.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <utility>

#include "ops/cuda_module.h"
#include "ops/device.h"
#include "ops/nf4.h"
#include "ops/residual_rms_norm.h"
#include "ops/weight_cpu.h"

namespace {

using lorry::ops::CudaModule;
using lorry::ops::RmsNormKind;

/// Seconds a call, the best of five rounds of 50.
double seconds(at::Device device, const std::function<void()>& work) {
  constexpr int kRounds = 5, kCalls = 50;
  const c10::impl::VirtualGuardImpl cuda(at::kCUDA);
  double best = 1e9;
  for (int round = 0; round <= kRounds; ++round) {  // the first one warms up
    cuda.synchronizeDevice(device.index());
    const auto start = std::chrono::steady_clock::now();
    for (int call = 0; call < kCalls; ++call) work();
    cuda.synchronizeDevice(device.index());
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    if (round > 0) best = std::min(best, time.count() / kCalls);
  }
  return best;
}

/// What is measured, and beside it libtorch's way to the same.
struct Case {
  std::string name;
  at::Tensor x;    ///< names the size and the dtype
  double tensors;  ///< bytes that the kernel must move, in sizes of x
  std::function<void()> ours, theirs;
};

void report(at::Device device, const Case& c) {
  const double bytes = c.tensors * static_cast<double>(c.x.nbytes());
  const double ours = seconds(device, c.ours), theirs = seconds(device, c.theirs);
  const std::string name = fmt::format("ops.{}.{}x{}.{}", c.name, c.x.size(0), c.x.size(1),
                                       at::toString(c.x.scalar_type()));
  fmt::print(
      "RESULT {} {:.1f} us\nRESULT {}.bandwidth {:.0f} GB/s\nRESULT {}.over_libtorch {:.2f} x\n",
      name, 1e6 * ours, name, 1e-9 * bytes / ours, name, theirs / ours);
}

void measure_norms(const CudaModule& module, at::Device device, const at::Tensor& x) {
  constexpr double kEps = 1e-6;
  constexpr auto kKind = RmsNormKind::kPlain;
  const int64_t width = x.size(1);
  const at::Tensor residual = at::randn_like(x), d = at::randn_like(x);
  const at::Tensor weight = at::randn({width}, x.options());
  const auto& ours = module.residual_rms_norm;
  const auto& plain = lorry::ops::kPlainRmsNorm;
  report(device, {"rms_norm.forward", x, 4, [&] { ours.forward(x, residual, weight, kEps, kKind); },
                  [&] { at::rms_norm(x + residual, {width}, weight, kEps); }});
  for (const bool wants_weight : {false, true}) {
    report(device, {wants_weight ? "rms_norm.backward_weight" : "rms_norm.backward", x, 4,
                    [&] { ours.backward(x, weight, residual, d, kEps, kKind, wants_weight); },
                    [&] { plain.backward(x, weight, residual, d, kEps, kKind, wants_weight); }});
  }
}

/// Of rows as an MLP has them: x is (T, w).
void measure_gate(const CudaModule& module, at::Device device, const at::Tensor& x) {
  const at::Tensor joined = at::randn({x.size(0), 2 * x.size(1)}, x.options()),
                   d_joined = at::empty_like(joined);
  const auto halves = joined.chunk(2, 1), d = d_joined.chunk(2, 1);
  const auto &gate = halves[0], &up = halves[1];
  report(device, {"gate.forward", x, 3, [&] { module.gate.forward(gate, up, {}); },
                  [&] { at::silu(gate).mul_(up); }});
  report(device, {"gate.backward", x, 5, [&] { module.gate.backward(x, gate, up, {}, d[0], d[1]); },
                  [&] {
                    at::Tensor work = at::silu(gate);
                    at::Tensor d_gate = d[0], d_up = d[1];
                    at::mul_out(d_up, x, work);
                    at::mul_out(work, x, up);
                    at::silu_backward_out(d_gate, work, gate);
                  }});
}

/// Of all heads of rows, in place: x is (T, heads * 128).
void measure_rope(const CudaModule& module, at::Device device, const at::Tensor& x) {
  const at::Tensor heads = x.unflatten(1, {-1, 128});
  const at::Tensor cos = at::ones({x.size(0), 1, 64}, x.options()), sin = at::zeros_like(cos);
  const at::Tensor a = heads.narrow(2, 0, 64), b = heads.narrow(2, 64, 64);
  report(device, {"rope", x, 2, [&] { module.rope.rotate(heads, heads, cos, sin, 1); },
                  [&] {
                    const at::Tensor from_a = a * sin, from_b = b * sin;
                    a.mul_(cos).sub_(from_b);
                    b.mul_(cos).add_(from_a);
                  }});
}

/// x is (rows, V).
void measure_loss(const CudaModule& module, at::Device device, at::Tensor x) {
  const at::Tensor targets = at::zeros({x.size(0)}, x.options().dtype(at::kLong));
  report(device,
         {"cross_entropy", x, 3, [&] { module.cross_entropy.cross_entropy(x, targets, 1, {}); },
          [&] {
            const at::Tensor z = x.to(at::kFloat);
            at::cross_entropy_loss(z, targets, {}, at::Reduction::Sum);
            x.copy_(at::softmax(z, 1));
          }});
}

/// x is what the weight is widened to.
void measure_dequantize(const CudaModule& module, at::Device device, const at::Tensor& x) {
  using lorry::ops::WeightFormat;
  const auto dense = lorry::ops::Weight::dense(x);
  const auto nf4 = lorry::ops::quantize(dense, WeightFormat::kNf4);
  const auto fp8 = lorry::ops::quantize(dense, WeightFormat::kFp8Rows);
  at::Tensor out = at::empty_like(x);
  const at::Tensor scale_numbers = lorry::ops::nf4_scale_numbers(device);
  report(device,
         {"widen.nf4", x, 1.26,
          [&] { module.dequantize.nf4(*nf4, lorry::ops::cpu::kNf4Numbers, scale_numbers, out); },
          [&] { lorry::ops::widen_nf4_plain(*nf4, out); }});
  report(device, {"widen.fp8", x, 1.5, [&] { module.dequantize.fp8_rows(*fp8, out); },
                  [&] { out.copy_(fp8->data.to(at::kFloat).mul_(fp8->scales)); }});
}

}  // namespace

int main() {
  const auto device = lorry::ops::resolve_device("cuda");
  if (!device.ok()) return fmt::print(stderr, "{}\n", device.error().message), 1;
  const auto* module = lorry::ops::cuda_kernels(*device);
  if (module == nullptr) return 1;  // cuda_kernels has said why
  const at::NoGradGuard no_grad;
  const auto random = [&](int64_t rows, int64_t width, at::ScalarType dtype = at::kBFloat16) {
    return at::randn({rows, width}, at::TensorOptions(*device).dtype(dtype));
  };
  const at::Tensor x = random(8192, 4096), y = at::empty_like(x);
  report(*device, {"copy", x, 2, [&] { y.copy_(x); }, [&] { y.copy_(x); }});
  for (const auto& [rows, width] : {std::pair<int64_t, int64_t>{8192, 896},
                                    {8192, 4096},
                                    {262144, 128},
                                    {1, 4096},
                                    {64, 4096}}) {
    measure_norms(*module, *device, random(rows, width));
  }
  measure_norms(*module, *device, random(8192, 4096, at::kFloat));
  for (const int64_t width : {4864, 14336}) measure_gate(*module, *device, random(8192, width));
  measure_gate(*module, *device, random(64, 14336));
  for (const int64_t rows : {64, 8192}) measure_rope(*module, *device, random(rows, 40 * 128));
  measure_loss(*module, *device, random(1024, 151936));
  measure_loss(*module, *device, random(512, 262144));
  measure_dequantize(*module, *device, random(14336, 4096));
  return 0;
}

// Rates of the CUDA kernels beside libtorch's own, and beside a copy, which is the most that memory
// gives. Prints a line for each measurement: GB/s of the bytes that the fused kernel must move.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

#include "ops/cuda_module.h"
#include "ops/device.h"
#include "ops/residual_rms_norm.h"

namespace {

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

void report(at::Device device, const at::Tensor& x, const char* what, double tensors,
            const std::function<void()>& ours, const std::function<void()>& theirs) {
  const double bytes = tensors * static_cast<double>(x.nbytes());
  const double a = seconds(device, ours), b = seconds(device, theirs);
  fmt::print(
      "RESULT {:>7} x {:<6} {:9} {:22} lorry {:8.1f} us {:7.0f} GB/s   libtorch {:8.1f} us {:7.0f} "
      "GB/s\n",
      x.size(0), x.size(1), at::toString(x.scalar_type()), what, 1e6 * a, 1e-9 * bytes / a, 1e6 * b,
      1e-9 * bytes / b);
}

void measure(const lorry::ops::CudaModule& module, at::Device device, int64_t rows, int64_t width,
             at::ScalarType dtype) {
  constexpr double kEps = 1e-6;
  constexpr auto kKind = RmsNormKind::kPlain;
  const auto options = at::TensorOptions(device).dtype(dtype);
  const at::Tensor x = at::randn({rows, width}, options), residual = at::randn_like(x);
  const at::Tensor weight = at::randn({width}, options), d = at::randn_like(x);
  const auto& ours = module.residual_rms_norm;
  const auto& plain = lorry::ops::kPlainRmsNorm;
  const at::Tensor target = at::empty_like(x);
  report(
      device, x, "copy", 2, [&] { target.copy_(x); }, [&] { target.copy_(residual); });
  report(
      device, x, "forward", 4, [&] { ours.forward(x, residual, weight, kEps, kKind); },
      [&] { at::rms_norm(x + residual, {width}, weight, kEps); });
  for (const bool wants_weight : {false, true}) {
    report(
        device, x, wants_weight ? "backward, with weight" : "backward", 4,
        [&] { ours.backward(x, weight, residual, d, kEps, kKind, wants_weight); },
        [&] { plain.backward(x, weight, residual, d, kEps, kKind, wants_weight); });
  }
}

}  // namespace

int main() {
  const auto device = lorry::ops::resolve_device("cuda");
  if (!device.ok()) return fmt::print(stderr, "{}\n", device.error().message), 1;
  const auto* module = lorry::ops::cuda_kernels(*device);
  if (module == nullptr) return 1;  // cuda_kernels has said why
  const at::NoGradGuard no_grad;
  for (const auto& [rows, width] : {std::pair<int64_t, int64_t>{8192, 896},
                                    {8192, 4096},
                                    {4096, 8192},
                                    {262144, 128},
                                    {1, 4096},
                                    {64, 4096}}) {
    measure(*module, *device, rows, width, at::kBFloat16);
  }
  measure(*module, *device, 8192, 4096, at::kFloat);
  measure(*module, *device, 8192, 4096, at::kHalf);
  return 0;
}

// From tensors to launches of the kernels in gate_cuda.cu. Part of liblorry_cuda.so.
#include "ops/gate_cuda.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "ops/cuda_launch.h"
#include "ops/cuda_module_parts.h"

extern "C" const unsigned char lorry_fatbin_gate[];

namespace lorry::ops {
namespace {

constexpr size_t kForward = 0, kBackward = kLayoutKernels;

template <typename Arguments>
void set_common(Arguments& args, const at::Tensor& gate, const at::Tensor& up,
                const Activation& activation) {
  args.gate = gate.const_data_ptr();
  args.up = up.const_data_ptr();
  args.gate_row = gate.stride(0);
  args.up_row = up.stride(0);
  args.rows = static_cast<int32_t>(gate.size(0));
  args.width = static_cast<int32_t>(gate.size(1));
  args.kind = static_cast<int32_t>(activation.kind);
  args.alpha = static_cast<float>(activation.alpha);
  args.limit = static_cast<float>(activation.limit);
}

void launch(size_t operation, const at::Tensor& x, int64_t n, void* args) {
  gate_kernels().launch(operation + layout_kernel(x.scalar_type(), n), x.get_device(),
                        flat_shape(x.numel() / n), args);
}

at::Tensor forward(const at::Tensor& gate, const at::Tensor& up, const Activation& activation) {
  at::Tensor out = at::empty(gate.sizes(), gate.options());
  if (out.numel() == 0) return out;
  GateArguments args{};
  set_common(args, gate, up, activation);
  args.out = out.data_ptr();
  const int64_t n =
      pack_size(gate, {gate.size(1), args.gate_row, args.up_row}, {args.gate, args.up, args.out});
  launch(kForward, gate, n, &args);
  return out;
}

void backward(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up,
              const Activation& activation, const at::Tensor& d_gate, const at::Tensor& d_up) {
  if (gate.numel() == 0) return;
  GateBackwardArguments args{};
  set_common(args, gate, up, activation);
  args.grad = grad.const_data_ptr();
  args.d_gate = d_gate.data_ptr();
  args.d_up = d_up.data_ptr();
  args.d_gate_row = d_gate.stride(0);
  args.d_up_row = d_up.stride(0);
  const int64_t n =
      pack_size(gate, {gate.size(1), args.gate_row, args.up_row, args.d_gate_row, args.d_up_row},
                {args.grad, args.gate, args.up, args.d_gate, args.d_up});
  launch(kBackward, gate, n, &args);
}

}  // namespace

const CudaKernels& gate_kernels() {
  static const CudaKernels kKernels(lorry_fatbin_gate,
                                    layout_kernel_names({"gate_forward", "gate_backward"}));
  return kKernels;
}

const GateImplementation kCudaGate = {&forward, &backward};

}  // namespace lorry::ops

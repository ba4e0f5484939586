// Through the dispatcher: libtorch has these two operations but no header for them.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "ops/cpu_packed.h"

namespace lorry::ops::cpu {
namespace {

/// Rows that the layout is chosen for; what suits one row also serves prompts.
constexpr int64_t kRowsHint = 1;

using Reorder = at::Tensor(const at::Tensor&, std::optional<int64_t>);
using Product = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                           std::string_view, c10::List<std::optional<at::Scalar>>,
                           std::optional<std::string_view>);

const c10::OperatorHandle* find(const char* name) {
  const auto found = c10::Dispatcher::singleton().findSchema({name, ""});
  if (!found) return nullptr;
  return new c10::OperatorHandle(*found);  // for the life of the program
}

const c10::OperatorHandle* reorder_op() {
  static const c10::OperatorHandle* kOp = find("mkldnn::_reorder_linear_weight");
  return kOp;
}
const c10::OperatorHandle* product_op() {
  static const c10::OperatorHandle* kOp = find("mkldnn::_linear_pointwise");
  return kOp;
}

}  // namespace

bool has_bf16_products() {
  static const bool kHas = [] {
    const auto* op = find("mkldnn::_is_mkldnn_bf16_supported");
    return op != nullptr && op->typed<bool()>().call();
  }();
  return kHas;
}

bool can_pack(const at::Tensor& matrix) {
  const bool is_product = matrix.scalar_type() == at::kFloat ||
                          (matrix.scalar_type() == at::kBFloat16 && has_bf16_products());
  return matrix.is_cpu() && is_product && matrix.dim() == 2 && at::globalContext().hasMKLDNN() &&
         reorder_op() && product_op();
}

Weight pack(const Weight& dense) {
  const at::Tensor packed = reorder_op()->typed<Reorder>().call(dense.data.contiguous(), kRowsHint);
  return {WeightFormat::kPacked, dense.out, dense.in, packed, {}, {}, dense.bias};
}

at::Tensor linear_packed(const at::Tensor& x, const Weight& weight) {
  const auto bias = weight.bias.defined() ? std::optional(weight.bias) : std::nullopt;
  return product_op()->typed<Product>().call(x.contiguous(), weight.data, bias, "none",
                                             c10::List<std::optional<at::Scalar>>(), "");
}

}  // namespace lorry::ops::cpu

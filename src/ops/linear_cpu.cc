// Through the dispatcher: libtorch has these two operations but no header for them.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <bit>
#include <vector>

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

/// The next number of rows with few significant bits: 19 below 64, 8 for each doubling from there.
int64_t padded_rows(int64_t rows) {
  const int64_t parts = rows < 64 ? 4 : 8;
  const auto step = std::max<int64_t>(
      1, static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(rows))) / parts);
  return (rows + step - 1) / step * step;
}

/// (rows, in) with rows of zeros after them, if the number is not one of the few.
at::Tensor with_padding(const at::Tensor& x) {
  const int64_t rows = x.size(0), padded = padded_rows(rows);
  if (padded == rows) return x.contiguous();
  at::Tensor out = at::empty({padded, x.size(1)}, x.options());
  out.narrow(0, 0, rows).copy_(x);
  out.narrow(0, rows, padded - rows).zero_();
  return out;
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

/// oneDNN generates code for each number of rows and keeps it for the last thousand products, about
/// 0.4 MB each: a server that meets every number of tokens would grow by hundreds of megabytes.
at::Tensor linear_packed(const at::Tensor& x, const Weight& weight) {
  const auto bias = weight.bias.defined() ? std::optional(weight.bias) : std::nullopt;
  const at::Tensor rows = x.reshape({-1, weight.in});
  const at::Tensor y = product_op()->typed<Product>().call(
      with_padding(rows), weight.data, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.out;
  return y.narrow(0, 0, rows.size(0)).view(shape);
}

}  // namespace lorry::ops::cpu

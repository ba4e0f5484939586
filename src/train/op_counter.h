// Counts what a piece of work asks of the device, for tests: kernels, products, autograd nodes and
// waits, by libtorch's own record of the operators that are called.
#pragma once

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace lorry::train {

/// What was called on this thread while the object lived. One at a time.
///
/// An operator counts if it is the innermost one that does work: `linear` is the `addmm` in it.
/// Views and allocations do none. Kernels of lorry's own count by the names they record
/// ("lorry::rms_norm"). On a CPU the operators are those of a GPU but for what ops/ chooses by
/// device.
class OpCounter {
 public:
  OpCounter() : handle_(at::addThreadLocalCallback(callback())) { current() = this; }
  ~OpCounter() {
    at::removeCallback(handle_);
    current() = nullptr;
  }
  OpCounter(const OpCounter&) = delete;
  OpCounter& operator=(const OpCounter&) = delete;

  const std::map<std::string, int64_t>& kernels() const { return kernels_; }
  int64_t launches() const {
    int64_t n = 0;
    for (const auto& [name, calls] : kernels_) n += calls;
    return n;
  }
  int64_t products() const {
    int64_t n = 0;
    for (const auto& [name, calls] : kernels_) n += is_product(name) ? calls : 0;
    return n;
  }
  /// Nodes of autograd's graph that a backward pass ran.
  int64_t nodes() const { return nodes_; }
  /// Calls that make the host wait for the device.
  int64_t waits() const { return waits_; }

 private:
  struct Frame {
    std::string name;
    bool has_inner = false;
  };

  static OpCounter*& current() {
    static thread_local OpCounter* counter = nullptr;
    return counter;
  }

  static at::RecordFunctionCallback callback() {
    return at::RecordFunctionCallback(
               [](const at::RecordFunction& fn) -> std::unique_ptr<at::ObserverContext> {
                 current()->frames_.push_back({fn.name()});
                 return nullptr;
               },
               [](const at::RecordFunction&, at::ObserverContext*) { current()->leave(); })
        .scopes({at::RecordScope::FUNCTION});
  }

  void leave() {
    const Frame frame = frames_.back();
    frames_.pop_back();
    if (frame.name.starts_with("autograd::engine::evaluate_function")) ++nodes_;
    // On a CPU the fused AdamW reads its step count.
    const bool in_optimizer = std::any_of(frames_.begin(), frames_.end(), [](const Frame& f) {
      return f.name == "aten::_fused_adamw_";
    });
    if (is_wait(frame.name) && !in_optimizer) ++waits_;
    // A product that adds copies first what it adds to, and is a kernel beside that copy.
    const bool is_whole =
        frame.name == "aten::_scaled_dot_product_flash_attention_for_cpu_backward";
    const bool counts =
        is_product(frame.name) || is_whole || (!frame.has_inner && is_kernel(frame.name));
    if (counts) ++kernels_[frame.name];
    if (!frames_.empty() && (counts || frame.has_inner)) frames_.back().has_inner = true;
  }

  static bool is_product(const std::string& name) {
    static const std::set<std::string> kNames = {"aten::mm", "aten::addmm", "aten::addmm_",
                                                 "aten::bmm"};
    return kNames.contains(name);
  }

  static bool is_wait(const std::string& name) {
    static const std::set<std::string> kNames = {"aten::_local_scalar_dense", "aten::nonzero",
                                                 "aten::is_nonzero", "aten::equal",
                                                 "aten::masked_select"};
    return kNames.contains(name);
  }

  /// Not views, allocations and what only asks.
  static bool is_kernel(const std::string& name) {
    static const std::set<std::string> kNames = {"as_strided",
                                                 "view",
                                                 "narrow",
                                                 "slice",
                                                 "select",
                                                 "transpose",
                                                 "t",
                                                 "expand",
                                                 "detach",
                                                 "detach_",
                                                 "reshape",
                                                 "unsqueeze",
                                                 "squeeze",
                                                 "split",
                                                 "chunk",
                                                 "permute",
                                                 "empty",
                                                 "empty_like",
                                                 "item",
                                                 "empty_strided",
                                                 "unbind",
                                                 "_unsafe_view",
                                                 "alias",
                                                 "split_with_sizes",
                                                 "resize_",
                                                 "set_",
                                                 "flatten",
                                                 "unflatten",
                                                 "contiguous",
                                                 "result_type",
                                                 "to",
                                                 "expand_as",
                                                 "lift_fresh",
                                                 "_reshape_alias",
                                                 "clone",
                                                 "zeros",
                                                 "ones",
                                                 "_local_scalar_dense",
                                                 "resolve_conj",
                                                 "resolve_neg",
                                                 "is_nonzero",
                                                 "new_empty",
                                                 "real",
                                                 "new_empty_strided",
                                                 "linear",
                                                 "matmul",
                                                 "numpy_T",
                                                 "unsafe_split",
                                                 "_to_copy"};
    if (name.starts_with("lorry::")) return true;
    return name.starts_with("aten::") && !kNames.contains(name.substr(6));
  }

  at::CallbackHandle handle_;
  std::vector<Frame> frames_;
  std::map<std::string, int64_t> kernels_;
  int64_t nodes_ = 0, waits_ = 0;
};

}  // namespace lorry::train

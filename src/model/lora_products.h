// An adapter's pairs in the form in which a whole map is one operation.
#pragma once

#include <optional>
#include <vector>

#include "model/lora.h"
#include "ops/lora_linear.h"

namespace lorry::model {

/// What ops::lora_linear takes, for map `linear` whose modules have `weights`, in products of
/// `dtype`. Nullopt where that form does not serve: several adapters in the step, dropout, DoRA,
/// trained biases, weights that are trained or packed, trained pairs without gradient buffers.
std::optional<std::vector<ops::LoraModule>> lora_modules(const std::vector<ops::Weight>& weights,
                                                         const AdapterView& adapters,
                                                         int64_t linear, at::ScalarType dtype);

}  // namespace lorry::model

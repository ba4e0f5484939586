// A rank's part of tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "model/shard.h"
#include "ops/weight.h"

namespace lorry::model {

/// The ranges of the first dimension, one after another: a view where they are one range.
at::Tensor rows_of(const at::Tensor& whole, const std::vector<Range>& rows);

/// What a rank holds of module `module` of a map, whose whole weight this is; parts may be views.
/// Unsupported, naming `name`, where columns cut a block of a quantised weight apart.
Result<ops::Weight> part_of(const ops::Weight& whole, const LinearShard& shard, size_t module,
                            const std::string& name);

}  // namespace lorry::model

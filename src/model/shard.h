// One rank's part of a model that several devices hold together (tensor parallelism). The part is a
// ModelSpec again, with fewer heads and narrower MLPs, so that everything that walks a spec serves
// it as it is. Source: Shoeybi et al. 2019, arXiv:1909.08053, section 3.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "model/spec.h"

namespace lorry::model {

struct Range {
  int64_t first = 0, count = 0;
};

/// What a rank holds of a LinearSpec. The outputs of a map that is cut by its columns are sums over
/// all ranks, of which only one adds the bias.
struct LinearShard {
  std::vector<std::vector<Range>> rows;  ///< by module: of the whole module's rows, in this order
  Range columns;
  bool has_bias = true;
};

struct ModelShard {
  ModelSpec whole;
  /// The rank's own sizes; modules and tensors keep their order and their names.
  ModelSpec spec;
  std::vector<LinearShard> linears;  ///< by ModelSpec::linears
  std::vector<Range> tensors;        ///< by ModelSpec::tensors: of the first dimension
  Range head;                        ///< the logits that the rank computes
};

/// `rank` of `ranks`: heads, the width of the MLPs and the vocabulary are divided; where there are
/// fewer key/value heads than ranks, several hold the same. Usage error if the sizes cannot be
/// divided so; unsupported for models whose norm runs over all heads (OLMo 2).
Result<ModelShard> shard_model(const ModelSpec& whole, int64_t rank, int64_t ranks);

}  // namespace lorry::model

#include "model/shard_weights.h"

#include <ATen/Functions.h>
#include <fmt/format.h>

namespace lorry::model {
at::Tensor rows_of(const at::Tensor& whole, const std::vector<Range>& rows) {
  if (rows.size() == 1) return whole.narrow(0, rows[0].first, rows[0].count);
  std::vector<at::Tensor> parts;
  for (const Range& range : rows) parts.push_back(whole.narrow(0, range.first, range.count));
  return at::cat(parts);
}

Result<ops::Weight> part_of(const ops::Weight& whole, const LinearShard& shard, size_t module,
                            const std::string& name) {
  const Range columns = shard.columns;
  /// Of a field that holds `numbers` numbers of a row in each of its columns.
  const auto part = [&](const at::Tensor& field, int64_t numbers) {
    return rows_of(field, shard.rows[module])
        .narrow(1, columns.first / numbers, columns.count / numbers);
  };
  ops::Weight own = whole;
  own.in = columns.count;
  own.out = 0;
  for (const Range& range : shard.rows[module]) own.out += range.count;
  if (whole.bias.defined()) {
    own.bias = shard.has_bias ? rows_of(whole.bias, shard.rows[module]) : at::Tensor();
  }
  if (whole.format == ops::WeightFormat::kDense) {
    own.data = part(whole.data, 1);
    return own;
  }
  const bool is_cut =
      columns.first % ops::kMxfp4Block != 0 || columns.count % ops::kMxfp4Block != 0;
  if (whole.format != ops::WeightFormat::kMxfp4 || is_cut) {
    return unsupported(
        fmt::format("{}: stored as {}, its {} columns cannot be divided among so many ranks", name,
                    ops::format_name(whole.format), whole.in));
  }
  own.data = part(whole.data, 2);
  own.scales = part(whole.scales, ops::kMxfp4Block);
  return own;
}

}  // namespace lorry::model

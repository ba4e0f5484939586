#include "train/batch.h"

#include <algorithm>

namespace lorry::train {
namespace {

/// A run under construction.
struct Builder {
  std::vector<int64_t> input_ids, positions, cu_seqlens{0}, target_rows, targets;

  int64_t tokens() const { return static_cast<int64_t>(input_ids.size()); }

  void append(const data::TokenRow& row, int64_t length) {
    const int64_t begin = tokens();
    for (int64_t t = 0; t < length; ++t) {
      input_ids.push_back(row.input_ids[t]);
      positions.push_back(t);
      if (!row.assistant_masks[t + 1]) continue;
      target_rows.push_back(begin + t);
      targets.push_back(row.input_ids[t + 1]);
    }
    cu_seqlens.push_back(tokens());
  }

  FlatRun finish(at::Device device) {
    const auto tensor = [&](const std::vector<int64_t>& values) {
      return at::tensor(values, at::kLong).to(device);
    };
    return {tensor(input_ids), tensor(positions), std::move(cu_seqlens), tensor(target_rows),
            tensor(targets)};
  }
};

}  // namespace

int64_t useful_length(const data::TokenRow& row, int64_t max_length) {
  int64_t length = std::min<int64_t>(row.input_ids.size(), max_length) - 1;
  while (length > 0 && !row.assistant_masks[length]) --length;
  return std::max<int64_t>(length, 0);
}

StepBatch make_step_batch(std::span<const Row> rows,
                          const std::function<data::TokenRow(Place)>& token_row, int64_t max_length,
                          int64_t run_tokens, at::Device device) {
  StepBatch batch;
  Builder builder;
  const auto flush = [&] {
    if (builder.tokens() == 0) return;
    batch.targets += static_cast<int64_t>(builder.targets.size());
    batch.runs.push_back(builder.finish(device));
    builder = {};
  };
  for (const Row& row : rows) {
    for (const Place& place : row) {
      const data::TokenRow tokens = token_row(place);
      const auto size = static_cast<int64_t>(tokens.input_ids.size());
      batch.tokens += std::min(size, max_length);
      batch.cut_examples += size > max_length;
      const int64_t length = useful_length(tokens, max_length);
      batch.empty_examples += length == 0;
      if (length == 0) continue;
      if (builder.tokens() + length > run_tokens) flush();
      const auto used = tokens.input_ids.first(length + 1);
      batch.max_id = std::max(batch.max_id, *std::max_element(used.begin(), used.end()));
      builder.append(tokens, length);
    }
  }
  flush();
  return batch;
}

}  // namespace lorry::train

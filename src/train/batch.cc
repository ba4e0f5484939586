#include "train/batch.h"

#include <algorithm>

namespace lorry::train {
namespace {

/// A micro-batch under construction.
class Builder {
 public:
  explicit Builder(const BatchOptions& options) : options_(options) {}

  int64_t tokens() const { return static_cast<int64_t>(input_ids_.size()); }
  int64_t targets() const { return static_cast<int64_t>(targets_.size()); }

  void append(const data::TokenRow& row, int64_t length, Place place) {
    const int64_t begin = tokens();
    const auto sequence = static_cast<int64_t>(cu_seqlens_.size()) - 1;
    for (int64_t t = 0; t < length; ++t) {
      input_ids_.push_back(row.input_ids[t]);
      positions_.push_back(t);
      if (!row.assistant_masks[t + 1]) continue;
      target_rows_.push_back(begin + t);
      targets_.push_back(row.input_ids[t + 1]);
      target_sequence_.push_back(sequence);
    }
    if (options_.dropout_seed) append_keys(length, place);
    cu_seqlens_.push_back(tokens());
  }

  MicroBatch finish() {
    const std::vector<const std::vector<int64_t>*> parts = {
        &input_ids_,       &positions_,  &target_rows_, &targets_,
        &target_sequence_, &cu_seqlens_, &dropout_keys_};
    size_t numbers = 0;
    for (const auto* part : parts) numbers += part->size();
    const at::Tensor buffer =
        at::empty({static_cast<int64_t>(numbers)},
                  at::TensorOptions(at::kLong).pinned_memory(options_.device.is_cuda()));
    int64_t begin = 0;
    std::vector<at::Tensor> views;
    for (const auto* part : parts) {
      const auto size = static_cast<int64_t>(part->size());
      std::copy(part->begin(), part->end(), buffer.mutable_data_ptr<int64_t>() + begin);
      views.push_back(buffer.narrow(0, begin, size));
      begin += size;
    }
    return {views[0],
            views[1],
            std::move(cu_seqlens_),
            views[2],
            views[3],
            views[4],
            options_.dropout_seed ? views[6] : at::Tensor(),
            {},
            views[5]};
  }

 private:
  void append_keys(int64_t length, Place place) {
    const uint64_t example =
        mix(mix(*options_.dropout_seed, static_cast<uint64_t>(place.shard)), place.row);
    for (int64_t t = 0; t < length; ++t) {
      dropout_keys_.push_back(static_cast<int64_t>(mix(example, t)));
    }
  }

  const BatchOptions& options_;
  std::vector<int64_t> input_ids_, positions_, cu_seqlens_{0}, target_rows_, targets_,
      target_sequence_, dropout_keys_;
};

}  // namespace

MicroBatch MicroBatch::to(at::Device device) const {
  if (input_ids.device() == device) return *this;
  const at::Tensor all = input_ids.as_strided(
      {static_cast<int64_t>(input_ids.storage().nbytes() / sizeof(int64_t))}, {1}, 0);
  const at::Tensor moved = all.to(device, /*non_blocking=*/true);
  MicroBatch batch = *this;
  for (at::Tensor* view : {&batch.input_ids, &batch.positions, &batch.target_rows, &batch.targets,
                           &batch.target_sequence, &batch.dropout_keys, &batch.ends}) {
    if (view->defined()) *view = moved.narrow(0, view->storage_offset(), view->size(0));
  }
  if (device.is_cuda()) batch.cu_seqlens_device = batch.ends.to(at::kInt);
  return batch;
}

int64_t useful_length(const data::TokenRow& row, int64_t max_length) {
  int64_t length = std::min<int64_t>(row.input_ids.size(), max_length) - 1;
  while (length > 0 && !row.assistant_masks[length]) --length;
  return std::max<int64_t>(length, 0);
}

StepBatch make_step_batch(std::span<const PackedRow> rows,
                          const std::function<data::TokenRow(Place)>& token_row,
                          const BatchOptions& options) {
  const int64_t max_length = options.max_length;
  StepBatch batch;
  std::optional<Builder> builder(options);
  const auto flush = [&] {
    if (builder->tokens() == 0) return;
    batch.targets += builder->targets();
    batch.micro_batches.push_back(builder->finish());
    builder.emplace(options);
  };
  for (const PackedRow& row : rows) {
    for (const Place& place : row) {
      const data::TokenRow tokens = token_row(place);
      const auto size = static_cast<int64_t>(tokens.input_ids.size());
      batch.tokens += std::min(size, max_length);
      batch.cut_examples += size > max_length;
      const int64_t length = useful_length(tokens, max_length);
      batch.empty_examples += length == 0;
      if (length == 0) continue;
      if (builder->tokens() + length > options.micro_batch_tokens) flush();
      const auto used = tokens.input_ids.first(length + 1);
      batch.max_id = std::max(batch.max_id, *std::max_element(used.begin(), used.end()));
      builder->append(tokens, length, place);
    }
  }
  flush();
  return batch;
}

}  // namespace lorry::train

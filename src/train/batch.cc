#include "train/batch.h"

#include <algorithm>
#include <numeric>

#include "base/mix.h"

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

/// One length after another, a new bin where the next does not fit. Of rows that fill the bins it
/// finds the fewest, which pack() may miss.
std::vector<std::vector<int32_t>> in_order(std::span<const int64_t> lengths, int64_t capacity) {
  std::vector<std::vector<int32_t>> bins;
  int64_t left = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (bins.empty() || lengths[i] > left) {
      bins.emplace_back();
      left = capacity;
    }
    bins.back().push_back(static_cast<int32_t>(i));
    left -= lengths[i];
  }
  return bins;
}

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

std::vector<std::vector<int32_t>> balance(std::span<const int64_t> lengths, int64_t capacity) {
  if (lengths.empty()) return {};
  capacity = std::max(capacity, *std::max_element(lengths.begin(), lengths.end()));
  auto fewest = in_order(lengths, capacity);
  if (auto packed = pack(lengths, capacity); packed.size() < fewest.size()) fewest = packed;
  std::vector<int32_t> by_length(lengths.size());
  std::iota(by_length.begin(), by_length.end(), 0);
  std::stable_sort(by_length.begin(), by_length.end(),
                   [&](int32_t a, int32_t b) { return lengths[a] > lengths[b]; });
  std::vector<std::vector<int32_t>> even(fewest.size());
  std::vector<int64_t> tokens(fewest.size());
  for (const int32_t index : by_length) {
    const auto least = std::min_element(tokens.begin(), tokens.end()) - tokens.begin();
    even[least].push_back(index);
    tokens[least] += lengths[index];
  }
  if (*std::max_element(tokens.begin(), tokens.end()) > capacity) return fewest;
  for (auto& bin : even) std::sort(bin.begin(), bin.end());
  std::sort(even.begin(), even.end());
  return even;
}

StepBatch make_step_batch(std::span<const PackedRow> rows,
                          const std::function<data::TokenRow(Place)>& token_row,
                          const BatchOptions& options) {
  const int64_t max_length = options.max_length;
  StepBatch batch;
  std::vector<data::TokenRow> examples;  // that have a target
  std::vector<Place> places;
  std::vector<int64_t> lengths;
  for (const PackedRow& row : rows) {
    for (const Place& place : row) {
      const data::TokenRow tokens = token_row(place);
      const auto size = static_cast<int64_t>(tokens.input_ids.size());
      batch.tokens += std::min(size, max_length);
      batch.cut_examples += size > max_length;
      const int64_t length = useful_length(tokens, max_length);
      batch.empty_examples += length == 0;
      if (length == 0) continue;
      const auto used = tokens.input_ids.first(length + 1);
      batch.max_id = std::max(batch.max_id, *std::max_element(used.begin(), used.end()));
      examples.push_back(tokens);
      places.push_back(place);
      lengths.push_back(length);
    }
  }
  for (const auto& bin : balance(lengths, options.micro_batch_tokens)) {
    Builder builder(options);
    for (const int32_t i : bin) builder.append(examples[i], lengths[i], places[i]);
    batch.targets += builder.targets();
    batch.micro_batches.push_back(builder.finish());
  }
  return batch;
}

}  // namespace lorry::train

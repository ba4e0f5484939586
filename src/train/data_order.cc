#include "train/data_order.h"

#include <algorithm>
#include <numeric>

namespace lorry::train {
namespace {

constexpr int kRounds = 6;

/// A number in [0, bound) from 64 random bits.
uint64_t scale_to(uint64_t bits, uint64_t bound) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(bits) * bound) >> 64);
}

}  // namespace

Permutation::Permutation(int64_t size, uint64_t key)
    : size_(static_cast<uint64_t>(size)), key_(key), half_bits_(1) {
  while (half_bits_ < 31 && (uint64_t{1} << (2 * half_bits_)) < size_) ++half_bits_;
}

uint64_t Permutation::encrypt(uint64_t value) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = value >> half_bits_, right = value & mask;
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t next = left ^ (mix(mix(key_, round), right) & mask);
    left = right;
    right = next;
  }
  return left << half_bits_ | right;
}

int64_t Permutation::operator()(int64_t index) const {
  uint64_t value = static_cast<uint64_t>(index);
  do value = encrypt(value);
  while (value >= size_);
  return static_cast<int64_t>(value);
}

DataOrder::DataOrder(std::vector<int64_t> shard_rows, bool shuffle, uint64_t seed)
    : shard_rows_(std::move(shard_rows)),
      shuffle_(shuffle),
      seed_(seed),
      size_(std::accumulate(shard_rows_.begin(), shard_rows_.end(), int64_t{0})) {}

void DataOrder::enter(int64_t epoch) {
  if (epoch == epoch_) return;
  const uint64_t key = epoch_key(epoch);
  std::vector<int64_t> shards(shard_rows_.size());
  std::iota(shards.begin(), shards.end(), int64_t{0});
  for (size_t i = shards.size(); shuffle_ && i > 1; --i) {
    std::swap(shards[i - 1], shards[scale_to(mix(key, i), i)]);
  }
  stretches_.clear();
  int64_t begin = 0;
  for (const int64_t shard : shards) {
    const int64_t rows = shard_rows_[shard];
    if (rows == 0) continue;
    stretches_.push_back({shard, begin, Permutation(rows, mix(~key, shard))});
    begin += rows;
  }
  epoch_ = epoch;
}

Place DataOrder::at(int64_t epoch, int64_t position) {
  enter(epoch);
  const auto after =
      std::upper_bound(stretches_.begin(), stretches_.end(), position,
                       [](int64_t p, const Stretch& stretch) { return p < stretch.begin; });
  const Stretch& stretch = *std::prev(after);
  const int64_t index = position - stretch.begin;
  return {stretch.shard, shuffle_ ? stretch.permutation(index) : index};
}

}  // namespace lorry::train

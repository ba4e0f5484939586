// The order in which an epoch visits the examples of all shards.
#pragma once

#include <cstdint>
#include <vector>

#include "base/mix.h"

namespace lorry::train {

/// Where an example lies.
struct Place {
  int64_t shard = 0;
  int64_t row = 0;
  bool operator==(const Place&) const = default;
};

/// A full permutation of [0, size) that a key picks, in constant memory: a Feistel network over the
/// next power of four, walked until it lands inside. The same on every machine.
/// Source: Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains", section 3.
class Permutation {
 public:
  Permutation(int64_t size, uint64_t key);
  int64_t operator()(int64_t index) const;

 private:
  uint64_t encrypt(uint64_t value) const;
  uint64_t size_, key_;
  int half_bits_;
};

/// The order of every epoch; a position in it is a plain number, so going on from one takes
/// constant time. Shuffled: shards in a seeded random order, rows of a shard in a seeded random
/// order, both new in each epoch. Not shuffled: the order of the data. Not thread-safe.
class DataOrder {
 public:
  DataOrder(std::vector<int64_t> shard_rows, bool shuffle, uint64_t seed);
  /// Examples in an epoch.
  int64_t size() const { return size_; }
  /// 0 <= position < size().
  Place at(int64_t epoch, int64_t position);
  /// A number that epoch and seed decide, for further choices within the epoch.
  uint64_t epoch_key(int64_t epoch) const { return mix(seed_, static_cast<uint64_t>(epoch)); }
  bool shuffled() const { return shuffle_; }

 private:
  struct Stretch {
    int64_t shard, begin;  // first position of the shard's rows in the epoch
    Permutation permutation;
  };
  void enter(int64_t epoch);

  std::vector<int64_t> shard_rows_;
  bool shuffle_;
  uint64_t seed_;
  int64_t size_ = 0;
  int64_t epoch_ = -1;              // that stretches_ describes
  std::vector<Stretch> stretches_;  // shards with rows, in the epoch's order
};

}  // namespace lorry::train

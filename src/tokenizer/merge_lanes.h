// Byte-pair merges of several short words at once, so that the memory answers for all of them at
// the same time: a word alone waits for two look-ups after each of its merges.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "tokenizer/merge_table.h"

#ifdef __SSE4_1__
#include <smmintrin.h>
#endif

namespace lorry::tokenizer {

/// One word being merged. Symbols are at 1 to n; 0 and n + 1 are ends that merge with nothing.
class MergeLane {
 public:
  static constexpr size_t kMaxSymbols = 64;
  /// No token: merges with nothing.
  static constexpr int32_t kNoId = MergeTable::kMaxId;

  /// Makes room for `n` symbols, of which set() is to be called for each.
  void start(size_t n) {
    n_ = static_cast<uint32_t>(n);
    std::fill_n(keys_.begin(), n / kStride * kStride + kStride, kNever);
    ids_[0] = ids_[n + 1] = kNoId;
    changed_ = 0;
  }
  /// Symbol i, from 0; `rank`: of merging it with the next, kNone for the last.
  void set(size_t i, int32_t id, uint32_t rank) {
    ids_[i + 1] = id;
    keys_[i + 1] = key(rank, static_cast<uint32_t>(i + 1));
    next_[i + 1] = static_cast<uint8_t>(i + 2);
    previous_[i + 1] = static_cast<uint8_t>(i);
  }

  /// Does the next merge and asks the memory for what the one after it depends on; false if nothing
  /// is left to merge.
  bool step(const MergeTable& merges) {
    if (changed_ != 0) {  // the answers to what the last step asked for
      const uint32_t before = previous_[changed_];
      keys_[changed_] = key(merges.rank(ids_[changed_], ids_[next_[changed_]]), changed_);
      keys_[before] = key(merges.rank(ids_[before], ids_[changed_]), before);
    }
    const int32_t best = least();
    if (best >= kNever) return false;
    const uint32_t left = static_cast<uint32_t>(best) & kIndexMask;
    const uint32_t right = next_[left], behind = next_[right];
    ids_[left] = merges.id(static_cast<uint32_t>(best) >> kIndexBits);
    keys_[right] = kNever;
    next_[left] = static_cast<uint8_t>(behind);
    previous_[behind] = static_cast<uint8_t>(left);
    merges.prefetch(ids_[left], ids_[behind]);
    merges.prefetch(ids_[previous_[left]], ids_[left]);
    changed_ = left;
    return true;
  }

  /// Writes what the word has become; returns how many ids.
  uint32_t finish(int32_t* out) const {
    uint32_t count = 0;
    for (uint32_t i = 1; i <= n_; i = next_[i]) out[count++] = ids_[i];
    return count;
  }

 private:
  // A rank gets its symbol's index below it, so that the least key says both.
  static constexpr int kIndexBits = 7;
  static constexpr uint32_t kIndexMask = (1u << kIndexBits) - 1;
  static constexpr int32_t kNever = static_cast<int32_t>(MergeTable::kNone << kIndexBits);
  static constexpr size_t kStride = 16;  // keys that are looked at together

  static int32_t key(uint32_t rank, uint32_t index) {
    return static_cast<int32_t>(rank << kIndexBits | index);
  }

#ifdef __SSE4_1__
  int32_t least() const {
    const auto four = [&](size_t i) {
      return _mm_load_si128(reinterpret_cast<const __m128i*>(&keys_[i]));
    };
    __m128i low = _mm_set1_epi32(kNever);
    for (size_t i = 0; i <= n_; i += kStride) {
      const __m128i a = _mm_min_epi32(four(i), four(i + 4));
      const __m128i b = _mm_min_epi32(four(i + 8), four(i + 12));
      low = _mm_min_epi32(low, _mm_min_epi32(a, b));
    }
    low = _mm_min_epi32(low, _mm_shuffle_epi32(low, 0x4E));
    return _mm_cvtsi128_si32(_mm_min_epi32(low, _mm_shuffle_epi32(low, 0xB1)));
  }
#else
  int32_t least() const { return *std::min_element(keys_.begin(), keys_.begin() + n_ + 1); }
#endif

  alignas(64) std::array<int32_t, kMaxSymbols + kStride> keys_;
  std::array<int32_t, kMaxSymbols + 2> ids_;
  std::array<uint8_t, kMaxSymbols + 2> next_, previous_;
  uint32_t n_ = 0;
  uint32_t changed_ = 0;  // the symbol that the last step made
};

}  // namespace lorry::tokenizer

// Which cache blocks are free, and how many hold each of the others.
#pragma once

#include <cstdint>
#include <vector>

namespace lorry::generate {

/// Reference counts of `count` cache blocks. Not thread-safe.
class BlockPool {
 public:
  explicit BlockPool(int64_t count) : references_(static_cast<size_t>(count), 0) {
    // Taken from the end, so that the low blocks go first and untouched memory stays unused.
    for (int64_t block = count; block > 0; --block)
      free_.push_back(static_cast<int32_t>(block - 1));
  }

  int64_t free_count() const { return static_cast<int64_t>(free_.size()); }
  /// A free block, held once. There must be one.
  int32_t allocate() {
    const int32_t block = free_.back();
    free_.pop_back();
    references_[block] = 1;
    return block;
  }
  /// Holds a block that is held already once more.
  void retain(int32_t block) { ++references_[block]; }
  /// Undoes one `allocate` or `retain`; the last one frees the block.
  void release(int32_t block) {
    if (--references_[block] == 0) free_.push_back(block);
  }
  /// Whether more than one holds it: then nobody may write to it.
  bool is_shared(int32_t block) const { return references_[block] > 1; }

 private:
  std::vector<int32_t> references_;
  std::vector<int32_t> free_;
};

}  // namespace lorry::generate

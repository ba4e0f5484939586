// Rows: what a batch is made of. A row is one example, or several that are packed together.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "train/data_order.h"

namespace lorry::train {

/// The examples of a row: one, or several that are packed together.
using PackedRow = std::vector<Place>;

/// Where in the data a run stands; everything that is needed to go on.
struct Cursor {
  int64_t epoch = 0;
  int64_t position = 0;  ///< examples consumed in this epoch (packing: where the window begins)
  int64_t bin = 0;       ///< packing: rows consumed of the window
  int64_t rows = 0;      ///< rows consumed in this epoch
  bool operator==(const Cursor&) const = default;
};

/// Places lengths into bins of `capacity`, longest first, each into the fullest bin that still
/// takes it (best-fit decreasing). No length is above `capacity`. Returns indices, bins in order of
/// their first index, each bin's indices ascending.
std::vector<std::vector<int32_t>> pack(std::span<const int64_t> lengths, int64_t capacity);

/// Hands out the rows of epoch after epoch. Packing looks at a window of kWindow examples of the
/// order at a time, so a place in it is found again by packing one window. Not thread-safe.
class RowSource {
 public:
  static constexpr int64_t kWindow = 1024;
  /// Tokens of an example after it was cut to the longest allowed; asked for when packing.
  using LengthOf = std::function<int64_t(Place)>;

  RowSource(DataOrder order, bool packing, int64_t max_length, LengthOf length_of);

  /// The next row of the cursor's epoch; nullopt at its end.
  std::optional<PackedRow> next(Cursor& cursor);
  /// Packing reads every example's length to answer, once an epoch.
  int64_t rows_in_epoch(int64_t epoch);
  int64_t examples() const { return order_.size(); }
  bool packing() const { return packing_; }

 private:
  std::vector<PackedRow> pack_window(int64_t epoch, int64_t position);
  std::optional<PackedRow> next_packed(Cursor& cursor);

  DataOrder order_;
  bool packing_;
  int64_t max_length_;
  LengthOf length_of_;
  int64_t window_epoch_ = -1, window_position_ = -1;
  std::vector<PackedRow> window_;
  int64_t counted_epoch_ = -1, counted_rows_ = 0;
};

/// Steps of a run, as `transformers`' Trainer counts them: an epoch is
/// ceil(rows / rows_per_step) steps, its last step may be smaller, and a fraction of an epoch is
/// rounded up to steps.
int64_t count_steps(RowSource& rows, double epochs, int64_t rows_per_step);

/// The rows of the next step: `count` of them, fewer at an epoch's end, never none.
std::vector<PackedRow> take_step(RowSource& rows, Cursor& cursor, int64_t count);

}  // namespace lorry::train

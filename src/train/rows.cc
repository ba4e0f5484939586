#include "train/rows.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/mix.h"

namespace lorry::train {
namespace {

constexpr uint64_t kBinSalt = 0x62696e73;  // "bins"

}  // namespace

std::vector<std::vector<int32_t>> pack(std::span<const int64_t> lengths, int64_t capacity) {
  std::vector<int32_t> by_length(lengths.size());
  std::iota(by_length.begin(), by_length.end(), 0);
  std::stable_sort(by_length.begin(), by_length.end(),
                   [&](int32_t a, int32_t b) { return lengths[a] > lengths[b]; });
  std::vector<std::vector<int32_t>> bins;
  std::multimap<int64_t, size_t> room;  // tokens left -> bin
  for (const int32_t index : by_length) {
    const auto fit = room.lower_bound(lengths[index]);
    size_t bin = bins.size();
    int64_t left = capacity;
    if (fit != room.end()) {
      left = fit->first;
      bin = fit->second;
      room.erase(fit);
    } else {
      bins.emplace_back();
    }
    bins[bin].push_back(index);
    room.emplace(left - lengths[index], bin);
  }
  for (auto& bin : bins) std::sort(bin.begin(), bin.end());
  std::sort(bins.begin(), bins.end());
  return bins;
}

RowSource::RowSource(DataOrder order, bool packing, int64_t max_length, LengthOf length_of)
    : order_(std::move(order)),
      packing_(packing),
      max_length_(max_length),
      length_of_(std::move(length_of)) {}

std::vector<PackedRow> RowSource::pack_window(int64_t epoch, int64_t position) {
  const int64_t end = std::min(position + kWindow, order_.size());
  std::vector<Place> places;
  std::vector<int64_t> lengths;
  for (int64_t p = position; p < end; ++p) {
    places.push_back(order_.at(epoch, p));
    lengths.push_back(length_of_(places.back()));
  }
  std::vector<PackedRow> rows;
  for (const auto& bin : pack(lengths, max_length_)) {
    PackedRow& row = rows.emplace_back();
    for (const int32_t index : bin) row.push_back(places[index]);
  }
  return rows;
}

std::optional<PackedRow> RowSource::next_packed(Cursor& cursor) {
  while (cursor.position < order_.size()) {
    if (window_epoch_ != cursor.epoch || window_position_ != cursor.position) {
      window_ = pack_window(cursor.epoch, cursor.position);
      window_epoch_ = cursor.epoch;
      window_position_ = cursor.position;
    }
    const auto bins = static_cast<int64_t>(window_.size());
    if (cursor.bin < bins) {
      // Bins come in an order that their lengths shaped; a shuffled epoch must not show it.
      const uint64_t key = mix(order_.epoch_key(cursor.epoch) ^ kBinSalt, cursor.position);
      const int64_t bin = order_.shuffled() ? Permutation(bins, key)(cursor.bin) : cursor.bin;
      ++cursor.bin;
      ++cursor.rows;
      return window_[bin];
    }
    cursor.position += kWindow;
    cursor.bin = 0;
  }
  return std::nullopt;
}

std::optional<PackedRow> RowSource::next(Cursor& cursor) {
  if (packing_) return next_packed(cursor);
  if (cursor.position >= order_.size()) return std::nullopt;
  ++cursor.rows;
  return PackedRow{order_.at(cursor.epoch, cursor.position++)};
}

int64_t RowSource::rows_in_epoch(int64_t epoch) {
  if (!packing_) return order_.size();
  if (counted_epoch_ == epoch) return counted_rows_;
  int64_t rows = 0;
  for (int64_t p = 0; p < order_.size(); p += kWindow) {
    rows += static_cast<int64_t>(pack_window(epoch, p).size());
  }
  counted_epoch_ = epoch;
  counted_rows_ = rows;
  return rows;
}

int64_t count_steps(RowSource& rows, double epochs, int64_t rows_per_step) {
  if (!rows.packing()) {
    const int64_t in_epoch = (rows.rows_in_epoch(0) + rows_per_step - 1) / rows_per_step;
    return static_cast<int64_t>(std::ceil(epochs * static_cast<double>(in_epoch)));
  }
  int64_t steps = 0;
  for (int64_t epoch = 0; static_cast<double>(epoch) < epochs; ++epoch) {
    const int64_t in_epoch = (rows.rows_in_epoch(epoch) + rows_per_step - 1) / rows_per_step;
    const double part = std::min(1.0, epochs - static_cast<double>(epoch));
    steps += static_cast<int64_t>(std::ceil(part * static_cast<double>(in_epoch)));
  }
  return steps;
}

std::vector<PackedRow> take_step(RowSource& rows, Cursor& cursor, int64_t count) {
  std::vector<PackedRow> taken;
  while (taken.empty()) {
    while (static_cast<int64_t>(taken.size()) < count) {
      auto row = rows.next(cursor);
      if (!row) break;
      taken.push_back(std::move(*row));
    }
    if (taken.empty()) cursor = {cursor.epoch + 1};
  }
  return taken;
}

}  // namespace lorry::train

// The rows of a shard in pieces, worked on by several threads in bounded memory, in order.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/util/byte_size.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>

#include "base/cancel.h"
#include "base/result.h"
#include "data/ordered_work.h"
#include "data/shard.h"
#include "stages/shard_work.h"
#include "store/arrow_error.h"

namespace lorry::stages {

/// How much is held at a time.
struct PieceLimits {
  int threads = 1;
  int64_t piece_bytes = 1 << 20;       ///< larger batches are cut
  int64_t in_flight_bytes = 32 << 20;  ///< read, and not done with

  /// A piece is held as it was read, as it becomes (`growth` times as large), and by the writer;
  /// the store has its buffers.
  static PieceLimits of(const ShardWorkOptions& options, int growth) {
    const auto threads = worker_threads(options);
    const int64_t in_flight = std::max<int64_t>(options.memory / (16 * growth), 1 << 20);
    const int64_t piece =
        std::clamp<int64_t>(in_flight / (2 * threads), 64 << 10, int64_t{2} << 20);
    return {threads, piece, in_flight};
  }
};

/// Rows [first_row, first_row + batch->num_rows()) of a shard.
struct RowPiece {
  std::shared_ptr<arrow::RecordBatch> batch;
  int64_t first_row = 0;
  int64_t bytes = 0;
};

/// The pieces of one batch, in order.
class BatchPieces {
 public:
  /// `first_row`: of the batch, in its shard.
  static Result<BatchPieces> of(std::shared_ptr<arrow::RecordBatch> batch, int64_t first_row,
                                int64_t piece_bytes) {
    BatchPieces pieces;
    LORRY_ASSIGN(pieces.bytes_,
                 store::from_arrow(arrow::util::ReferencedBufferSize(*batch), "rows"));
    const int64_t n = pieces.bytes_ / piece_bytes + 1;
    pieces.step_ = (batch->num_rows() + n - 1) / n;
    pieces.batch_ = std::move(batch);
    pieces.first_row_ = first_row;
    return pieces;
  }

  bool at_end() const { return !batch_ || at_ == batch_->num_rows(); }
  /// Not at the end.
  RowPiece next() {
    const int64_t rows = std::min(step_, batch_->num_rows() - at_);
    RowPiece piece{rows == batch_->num_rows() ? batch_ : batch_->Slice(at_, rows), first_row_ + at_,
                   bytes_ * rows / batch_->num_rows()};
    at_ += rows;
    return piece;
  }

 private:
  std::shared_ptr<arrow::RecordBatch> batch_;
  int64_t first_row_ = 0, at_ = 0, step_ = 0, bytes_ = 0;
};

/// Cuts the batches of a stream into pieces.
class PieceSource {
 public:
  PieceSource(data::ShardStream& rows, int64_t piece_bytes)
      : rows_(rows), piece_bytes_(piece_bytes) {}

  /// A piece without a batch at the end.
  Result<RowPiece> next() {
    if (pieces_.at_end()) {
      const int64_t first_row = rows_.rows();
      LORRY_ASSIGN(auto batch, rows_.next());
      if (!batch) return RowPiece();
      LORRY_ASSIGN(pieces_, BatchPieces::of(std::move(batch), first_row, piece_bytes_));
    }
    return pieces_.next();
  }

 private:
  data::ShardStream& rows_;
  const int64_t piece_bytes_;
  BatchPieces pieces_;
};

/// Calls `work` for each piece, on the threads of `limits`, and `use` with the results in order, on
/// this one; the next pieces are read meanwhile. Ends early when `use` gives false.
template <typename T>
Result<> each_piece(data::ShardStream& rows, const PieceLimits& limits,
                    const std::function<T(const RowPiece&)>& work,
                    const std::function<Result<bool>(T)>& use) {
  PieceSource source(rows, limits.piece_bytes);
  std::deque<int64_t> sizes;  // of what is in flight
  int64_t in_flight = 0;
  data::OrderedWork<Result<RowPiece>> reader(1);
  data::OrderedWork<T> workers(limits.threads);
  const auto read_on = [&] { reader.push([&source] { return source.next(); }); };
  read_on();
  while (true) {
    while (!reader.empty() && in_flight < limits.in_flight_bytes &&
           sizes.size() < size_t(3 * limits.threads)) {
      LORRY_ASSIGN(RowPiece piece, reader.pop());
      if (!piece.batch) break;
      read_on();
      sizes.push_back(piece.bytes);
      in_flight += piece.bytes;
      workers.push([&work, piece = std::move(piece)] { return work(piece); });
    }
    if (sizes.empty()) return {};
    T done = workers.pop();
    LORRY_TRY(check_cancelled());  // after it: workers leave off when asked to stop
    LORRY_ASSIGN(const bool go_on, use(std::move(done)));
    if (!go_on) return {};
    in_flight -= sizes.front();
    sizes.pop_front();
  }
}

}  // namespace lorry::stages

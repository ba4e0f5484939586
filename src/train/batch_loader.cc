#include "train/batch_loader.h"

namespace lorry::train {
namespace {

/// Passes over the data at `cursor`: whole micro-batches count.
double epochs_at(RowSource& rows, const Cursor& cursor, int64_t rows_per_micro_batch) {
  const auto batches = [&](int64_t n) {
    return (n + rows_per_micro_batch - 1) / rows_per_micro_batch;
  };
  const int64_t in_epoch = batches(rows.rows_in_epoch(cursor.epoch));
  return static_cast<double>(cursor.epoch) +
         static_cast<double>(batches(cursor.rows)) / static_cast<double>(in_epoch);
}

}  // namespace

BatchLoader::BatchLoader(Source source, Cursor cursor, int64_t steps)
    : source_(std::move(source)), left_(steps) {
  prepare(cursor);
}

BatchLoader::~BatchLoader() {
  if (next_.valid()) next_.wait();
}

PreparedStep BatchLoader::next() {
  PreparedStep step = next_.get();
  prepare(step.cursor);
  return step;
}

void BatchLoader::prepare(Cursor cursor) {
  if (left_-- <= 0) return;
  next_ = std::async(std::launch::async, [this, cursor] { return prepared(cursor); });
}

PreparedStep BatchLoader::prepared(Cursor cursor) {
  PreparedStep step;
  step.rows = take_step(source_.rows, cursor, source_.rows_per_step);
  step.batch = source_.make(step.rows, cursor.epoch);
  step.cursor = cursor;
  step.epoch = epochs_at(source_.rows, cursor, source_.rows_per_micro_batch);
  return step;
}

}  // namespace lorry::train

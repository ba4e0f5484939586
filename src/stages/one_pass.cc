#include "stages/one_pass.h"

#include <arrow/record_batch.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.h"
#include "store/layout.h"

namespace lorry::stages {
namespace {

/// The rows of both stages are held at once, which a low ceiling has no room for.
constexpr int64_t kLeastMemory = 256 << 20;

}  // namespace

std::unique_ptr<OnePass> OnePass::begin(const ImportDatasetOptions& options,
                                        const std::string& dataset) {
  if (!options.standardize || options.fresh || options.world_size > 1) return nullptr;
  if (options.memory < kLeastMemory) return nullptr;
  const std::string dir = store::standardized_dir(dataset);
  const auto is_finished = [&] {
    const auto info = options.bucket->read_info(dir);
    return !info.ok() || info->has_value();
  };
  if (is_finished()) return nullptr;
  store::Work work{dir, {}, "import-dataset", store::raw_dir(dataset)};
  auto claim = store::Claim::take(options.bucket, std::move(work), /*wait=*/false);
  if (!claim.ok()) {
    log::debug("{}: left to a second pass: {}", dir, claim.error().message);
    return nullptr;
  }
  if (is_finished()) return nullptr;  // by whoever had the claim before
  return std::unique_ptr<OnePass>(new OnePass(options, dataset, *std::move(claim)));
}

OnePass::OnePass(const ImportDatasetOptions& options, std::string dataset,
                 std::unique_ptr<store::Claim> claim)
    : options_(options),
      dataset_(std::move(dataset)),
      claim_(std::move(claim)),
      limits_(PieceLimits::of(options, 1)),
      workers_(limits_.threads) {}

OnePass::~OnePass() { settle(); }

void OnePass::begin_shard(int64_t shard, std::string raw_key) {
  settle();
  if (given_up_) return;
  number_ = shard;
  raw_key_ = std::move(raw_key);
  rows_ = 0;
}

void OnePass::add(std::shared_ptr<arrow::RecordBatch> batch) {
  if (!number_) return;
  const auto added = add_batch(std::move(batch));
  if (!added.ok()) return give_up(added.error());
  if (!*added) drop_shard();
}

void OnePass::finish_shard() {
  if (!shard_) return;
  completed_ = std::async(std::launch::async, [this] { return complete_shard(); });
}

void OnePass::restart() {
  settle();
  rules_.reset();
  malformed_ = 0;
}

void OnePass::give_up(const Error& why) {
  log::debug("{}: left to a second pass: {}", store::standardized_dir(dataset_), why.message);
  drop_shard();
  given_up_ = true;
}

/// The first rows of shard 0 tell the rules; in an import that goes on they are in the bucket.
Result<bool> OnePass::open_shard(const arrow::RecordBatch& first) {
  if (!rules_) {
    auto rules = *number_ == 0 ? find_standard_rules(*first.schema(), &first, options_)
                               : find_standard_rules(*options_.bucket, dataset_, options_);
    LORRY_ASSIGN(rules_, std::move(rules));
  }
  LORRY_ASSIGN(shard_, StandardShard::create(claim_->bucket(), dataset_, *number_, rules_->rules,
                                             rules_->columns));
  return true;
}

Result<bool> OnePass::add_batch(std::shared_ptr<arrow::RecordBatch> batch) {
  if (!shard_) LORRY_TRY(open_shard(*batch));
  const int64_t first_row = std::exchange(rows_, rows_ + batch->num_rows());
  LORRY_ASSIGN(auto pieces, BatchPieces::of(std::move(batch), first_row, limits_.piece_bytes));
  while (!pieces.at_end()) {
    RowPiece piece = pieces.next();
    if (piece.bytes > limits_.in_flight_bytes) return false;  // a row of tens of MB
    while (!sizes_.empty() && (in_flight_ + piece.bytes > limits_.in_flight_bytes ||
                               sizes_.size() >= size_t(3 * limits_.threads))) {
      LORRY_ASSIGN(const bool whole, take_piece());
      if (!whole) return false;
    }
    sizes_.push_back(piece.bytes);
    in_flight_ += piece.bytes;
    workers_.push(
        [shard = shard_.get(), piece = std::move(piece)] { return shard->standardize(piece); });
  }
  return true;
}

/// Writes the oldest piece. False: its rows need a column that the shard was begun without; the
/// next one will have it, and this one is for the stage to make.
Result<bool> OnePass::take_piece() {
  StandardPiece piece = workers_.pop();
  in_flight_ -= sizes_.front();
  sizes_.pop_front();
  const auto refuse = [this](Ledger& ledger, Ledger::Named row) -> Result<> {
    if (++malformed_ > options_.skip_bad_rows) return invalid_input("too many malformed rows");
    ledger.drop(data::kMalformed, std::move(row));
    return {};
  };
  LORRY_ASSIGN(const bool whole, shard_->add(std::move(piece), refuse));
  rules_->columns.add(shard_->needed());
  return whole;
}

Result<> OnePass::complete_shard() {
  while (!sizes_.empty()) {
    LORRY_ASSIGN(const bool whole, take_piece());
    if (!whole) return {};
  }
  auto writer = shard_->take_writer();
  writer->set_state(ahead_state(*shard_, options_, raw_key_));
  return writer->finish();
}

void OnePass::drop_shard() {
  workers_.clear();
  sizes_.clear();
  in_flight_ = 0;
  shard_.reset();
  number_.reset();
}

/// Waits for the shard that is being completed, and forgets one that was not finished.
void OnePass::settle() {
  const auto done = completed_.valid() ? completed_.get() : Result<>();
  if (!done.ok()) return give_up(done.error());
  drop_shard();
}

}  // namespace lorry::stages

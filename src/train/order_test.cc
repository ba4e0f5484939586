// Order, packing, steps and batches.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "base/mix.h"
#include "train/batch.h"
#include "train/data_order.h"
#include "train/rows.h"

namespace lorry::train {
namespace {

std::vector<Place> epoch_places(DataOrder& order, int64_t epoch) {
  std::vector<Place> places;
  for (int64_t p = 0; p < order.size(); ++p) places.push_back(order.at(epoch, p));
  return places;
}

TEST(Permutation, VisitsEveryIndexOnceAtAnySize) {
  for (const int64_t size : {1, 2, 3, 5, 16, 17, 100, 1000, 4097}) {
    const Permutation permutation(size, 42);
    std::set<int64_t> seen;
    for (int64_t i = 0; i < size; ++i) seen.insert(permutation(i));
    EXPECT_EQ(static_cast<int64_t>(seen.size()), size);
    EXPECT_EQ(*seen.rbegin(), size - 1);
  }
}

TEST(Permutation, IsTheSameOnEveryMachine) {
  const Permutation permutation(10, 3407);
  std::vector<int64_t> order(10), again(10);
  for (int64_t i = 0; i < 10; ++i) order[i] = permutation(i);
  for (int64_t i = 0; i < 10; ++i) again[i] = Permutation(10, 3407)(i);
  EXPECT_EQ(order, again);
  EXPECT_EQ(mix(1, 2), mix(1, 2));
  EXPECT_EQ(mix(0, 0), 0xe220a8397b1dcdafULL);  // splitmix64's first output from seed 0
}

TEST(DataOrder, UnshuffledIsTheDataOrderInEveryEpoch) {
  DataOrder order({2, 0, 3}, /*shuffle=*/false, 1);
  const std::vector<Place> expected = {{0, 0}, {0, 1}, {2, 0}, {2, 1}, {2, 2}};
  EXPECT_EQ(epoch_places(order, 0), expected);
  EXPECT_EQ(epoch_places(order, 7), expected);
}

TEST(DataOrder, ShuffledEpochsDifferAndHoldEveryExampleOnce) {
  DataOrder order({20, 0, 30, 1}, /*shuffle=*/true, 1);
  const auto first = epoch_places(order, 0), second = epoch_places(order, 1);
  EXPECT_NE(first, second);
  for (const auto& places : {first, second}) {
    std::set<std::pair<int64_t, int64_t>> seen;
    for (const Place& place : places) seen.insert({place.shard, place.row});
    EXPECT_EQ(seen.size(), 51u);
  }
  EXPECT_EQ(epoch_places(order, 0), first) << "going back to an epoch gives it again";
}

TEST(Pack, FillsBinsWithoutOverflowAndLosesNothing) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 500; ++i) lengths.push_back(1 + (i * 7919) % 97);
  const auto bins = pack(lengths, 100);
  std::vector<int32_t> all;
  for (const auto& bin : bins) {
    int64_t tokens = 0;
    for (const int32_t i : bin) tokens += lengths[i];
    EXPECT_LE(tokens, 100);
    all.insert(all.end(), bin.begin(), bin.end());
  }
  std::sort(all.begin(), all.end());
  std::vector<int32_t> expected(500);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(all, expected);
  const int64_t tokens = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  EXPECT_LE(static_cast<double>(bins.size()), 1.03 * static_cast<double>(tokens) / 100 + 1);
}

RowSource packed_source() {
  return RowSource(DataOrder({1500, 900}, true, 5), true, 64,
                   [](Place place) { return 1 + (place.row * 31 + place.shard) % 60; });
}

TEST(Balance, TakesTheFewestBinsAndFillsThemEvenly) {
  const std::vector<int64_t> lengths = {300, 20, 500, 170, 90, 410, 60, 250};  // 1800
  const auto bins = balance(lengths, 1000);
  ASSERT_EQ(bins.size(), 2u);
  std::set<int32_t> seen;
  for (const auto& bin : bins) {
    int64_t tokens = 0;
    for (const int32_t i : bin) tokens += lengths[i];
    EXPECT_NEAR(tokens, 900, 20);
    EXPECT_TRUE(std::is_sorted(bin.begin(), bin.end()));
    seen.insert(bin.begin(), bin.end());
  }
  EXPECT_EQ(seen.size(), lengths.size());
  EXPECT_EQ(balance(lengths, 1000), bins);
}

TEST(Balance, KeepsToTheCapacityWhereEvenBinsWouldNotAndAdmitsALongExample) {
  // The longest first into the emptiest bin gives 3 + 2 + 2 = 7.
  const std::vector<int64_t> lengths = {3, 3, 2, 2, 2};
  EXPECT_EQ(balance(lengths, 6), (std::vector<std::vector<int32_t>>{{0, 1}, {2, 3, 4}}));
  EXPECT_EQ(balance(std::vector<int64_t>{9, 4, 3}, 6),
            (std::vector<std::vector<int32_t>>{{0}, {1, 2}}));
  EXPECT_TRUE(balance({}, 6).empty());
}

TEST(RowSource, APackedEpochGoesOnFromAnyCursor) {
  RowSource source = packed_source();
  Cursor cursor;
  std::vector<PackedRow> rows;
  std::vector<Cursor> cursors{cursor};
  while (auto row = source.next(cursor)) {
    rows.push_back(*row);
    cursors.push_back(cursor);
  }
  EXPECT_EQ(static_cast<int64_t>(rows.size()), source.rows_in_epoch(0));
  size_t examples = 0;
  for (const PackedRow& row : rows) examples += row.size();
  EXPECT_EQ(examples, 2400u);
  for (const size_t i : {size_t{0}, rows.size() / 3, rows.size() - 1}) {
    RowSource fresh = packed_source();
    Cursor from = cursors[i];
    EXPECT_EQ(fresh.next(from), rows[i]);
    EXPECT_EQ(from, cursors[i + 1]);
  }
}

TEST(RowSource, StepsAreCountedAsTrainerCountsThem) {
  RowSource source(DataOrder({50, 3}, false, 0), false, 64, nullptr);
  EXPECT_EQ(count_steps(source, 1, 8), 7);
  EXPECT_EQ(count_steps(source, 2, 8), 14);
  EXPECT_EQ(count_steps(source, 0.5, 8), 4);
  EXPECT_EQ(count_steps(source, 1, 100), 1);
}

TEST(StepBatch, TargetsAreTheNextTokensOfTheSameSequence) {
  const std::vector<std::vector<int32_t>> ids = {{10, 11, 12, 13}, {20, 21}, {30, 31, 32, 33, 34}};
  const std::vector<std::vector<int8_t>> masks = {{1, 0, 1, 0}, {0, 0}, {0, 0, 0, 1, 1}};
  const std::vector<PackedRow> rows = {{{0, 0}, {0, 1}}, {{0, 2}}};
  const auto fetch = [&](Place p) { return data::TokenRow{ids[p.row], masks[p.row]}; };
  const StepBatch batch =
      make_step_batch(rows, fetch, {.max_length = 4, .micro_batch_tokens = 100});
  ASSERT_EQ(batch.micro_batches.size(), 1u);
  const MicroBatch& run = batch.micro_batches[0];
  // The mask on a first token has no position before it; nothing behind the last target is run.
  EXPECT_TRUE(run.input_ids.equal(at::tensor({10, 11, 30, 31, 32}, at::kLong)));
  EXPECT_TRUE(run.positions.equal(at::tensor({0, 1, 0, 1, 2}, at::kLong)));
  EXPECT_TRUE(run.target_rows.equal(at::tensor({1, 4}, at::kLong)));
  EXPECT_TRUE(run.targets.equal(at::tensor({12, 33}, at::kLong)));
  EXPECT_EQ(run.cu_seqlens, (std::vector<int64_t>{0, 2, 5}));
  EXPECT_EQ(batch.tokens, 4 + 2 + 4);
  EXPECT_EQ(batch.targets, 2);
  EXPECT_EQ(batch.cut_examples, 1);
  EXPECT_EQ(batch.empty_examples, 1);
  EXPECT_EQ(
      make_step_batch(rows, fetch, {.max_length = 4, .micro_batch_tokens = 2}).micro_batches.size(),
      2u);
}

}  // namespace
}  // namespace lorry::train

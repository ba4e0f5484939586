// Recomputation changes no number; dropout belongs to the example.
#include "train/block_runner.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "train/batch.h"
#include "train/batch_loader.h"
#include "train/loss.h"
#include "train/test_model.h"
#include "train/trainable.h"

namespace lorry::train {
namespace {

/// Examples of a few lengths, all of whose tokens are targets.
struct Examples {
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<int8_t>> masks;
  std::vector<PackedRow> rows;

  explicit Examples(std::vector<int64_t> lengths) {
    for (size_t i = 0; i < lengths.size(); ++i) {
      std::vector<int32_t> tokens;
      for (int64_t t = 0; t < lengths[i]; ++t) tokens.push_back(int32_t((t * 31 + i * 17) % 131));
      masks.emplace_back(tokens.size(), 1);
      ids.push_back(std::move(tokens));
      rows.push_back({{0, static_cast<int64_t>(i)}});
    }
  }
  StepBatch batch(int64_t micro_batch_tokens, std::optional<uint64_t> dropout_seed = 5) const {
    return make_step_batch(rows,
                           [&](Place p) {
                             return data::TokenRow{ids[p.row], masks[p.row]};
                           },
                           {.max_length = 512,
                            .micro_batch_tokens = micro_batch_tokens,
                            .dropout_seed = dropout_seed});
  }
};

class BlockRunnerTest : public ::testing::Test {
 protected:
  struct Outcome {
    double loss = 0;
    std::vector<at::Tensor> grads;
  };

  void make(at::ScalarType dtype, bool full) {
    write_checkpoint(**bucket_, {.layers = 3, .dtype = dtype});
    model_ = load_model(**bucket_, dtype);
    adapter_ = full ? nullptr : random_adapter(*model_, {}, 0.1);
    trainable_ = full ? Trainable::of_model(*model_) : Trainable::of_adapter(adapter_, dtype);
  }

  Outcome run(const StepBatch& batch, Recompute recompute, double dropout) {
    trainable_.zero_grads();
    Outcome outcome;
    for (const MicroBatch& micro : batch.micro_batches) {
      model::PackedAttention attention(micro.cu_seqlens);
      model::AdapterView view = model::AdapterView::one(adapter_);
      view.dropout = dropout;
      view.dropout_keys = micro.dropout_keys;
      const at::Tensor hidden =
          run_blocks(*model_, micro.input_ids, micro.positions, attention, view, recompute)
              .index_select(0, micro.target_rows);
      const HeadLoss loss = head_loss(hidden.detach(), micro.targets, {model_->head_weight()},
                                      1.0 / double(batch.targets), trainable_.head_grad());
      outcome.loss += loss.sum.item<double>();
      torch::autograd::backward({hidden}, {loss.hidden_grad});
      trainable_.collect_grads();
    }
    for (const at::Tensor& grad : trainable_.grads()) outcome.grads.push_back(grad.clone());
    return outcome;
  }

  TestBucket bucket_;
  std::shared_ptr<model::Transformer> model_;
  std::shared_ptr<model::LoraAdapter> adapter_;
  Trainable trainable_;
};

TEST_F(BlockRunnerTest, LossesAndGradientsAreTheSameBitForBit) {
  const Examples examples({40, 23, 31, 7});
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const bool full : {false, true}) {
      make(dtype, full);
      const StepBatch batch = examples.batch(64);
      for (const double dropout : full ? std::vector{0.0} : std::vector{0.0, 0.2}) {
        const Outcome kept = run(batch, Recompute::kNone, dropout);
        EXPECT_GT(kept.grads[0].abs().max().item<double>(), 0);
        for (const auto other : {Recompute::kLight, Recompute::kFull, Recompute::kOffload}) {
          const Outcome again = run(batch, other, dropout);
          EXPECT_EQ(again.loss, kept.loss);
          for (size_t i = 0; i < kept.grads.size(); ++i) {
            ASSERT_TRUE(at::equal(again.grads[i], kept.grads[i])) << trainable_.names()[i];
          }
        }
      }
    }
  }
}

TEST_F(BlockRunnerTest, TheCutIntoMicroBatchesChangesNoDropout) {
  make(at::kFloat, false);
  const Examples examples({40, 23, 31, 7, 52});
  const Outcome one = run(examples.batch(1000), Recompute::kNone, 0.3);
  const Outcome many = run(examples.batch(32), Recompute::kNone, 0.3);
  const Outcome none = run(examples.batch(1000), Recompute::kNone, 0);
  EXPECT_NEAR(one.loss, many.loss, 1e-6 * one.loss);
  EXPECT_GT(std::abs(one.loss - none.loss), 1e-4 * one.loss);
  for (size_t i = 0; i < one.grads.size(); ++i) {
    EXPECT_TRUE(at::allclose(one.grads[i], many.grads[i], 1e-4, 1e-6));
  }
}

TEST(MicroBatch, KnowsTheSequenceOfEachTarget) {
  const StepBatch batch = Examples({4, 3}).batch(100, std::nullopt);
  ASSERT_EQ(batch.micro_batches.size(), 1u);
  const MicroBatch& micro = batch.micro_batches[0];
  EXPECT_TRUE(at::equal(micro.target_sequence, at::tensor({0, 0, 0, 1, 1}, at::kLong)));
  EXPECT_FALSE(micro.dropout_keys.defined());
}

TEST(BatchLoader, GivesTheStepsOfTheCursorAndTheCursorOfEachStep) {
  const auto rows = [] {
    return RowSource(DataOrder({10, 7}, true, 3), false, 100, [](Place) { return int64_t{5}; });
  };
  const auto make = [](const std::vector<PackedRow>& taken, int64_t epoch) {
    StepBatch batch;
    batch.tokens = static_cast<int64_t>(taken.size()) * 100 + epoch;
    return batch;
  };
  RowSource expected = rows(), given = rows();
  Cursor cursor, middle;
  BatchLoader loader({given, 4, 2, make}, cursor, 9);
  for (int step = 0; step < 9; ++step) {
    const auto taken = take_step(expected, cursor, 4);
    const PreparedStep prepared = loader.next();
    EXPECT_EQ(prepared.rows, taken);
    EXPECT_EQ(prepared.cursor, cursor);
    EXPECT_EQ(prepared.batch.tokens, int64_t(taken.size()) * 100 + cursor.epoch);
    if (step == 4) middle = prepared.cursor;
  }
  RowSource resumed = rows();
  BatchLoader rest({resumed, 4, 2, make}, middle, 4);
  for (int step = 0; step < 3; ++step) rest.next();
  EXPECT_EQ(rest.next().cursor, cursor);
}

}  // namespace
}  // namespace lorry::train

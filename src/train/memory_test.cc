// What is planned for each way to recompute, and which one auto takes.
#include "train/memory.h"

#include <gtest/gtest.h>

#include "train/test_model.h"

namespace lorry::train {
namespace {

class TrainMemoryTest : public ::testing::Test {
 protected:
  int64_t total(Recompute recompute) const {
    return training_memory(options_, shape_, recompute).total_bytes;
  }
  Recompute chosen(int64_t free) const { return choose_recompute(options_, shape_, free); }

  TestBucket bucket_;
  const model::ModelSpec spec_ = [this] {
    write_checkpoint(**bucket_, {.layers = 8});
    return model::load_model_spec(**bucket_, "models/m").value();
  }();
  TrainOptions options_;
  TrainShape shape_{spec_, at::kCPU, 1 << 20, 4, 1 << 18};
};

TEST_F(TrainMemoryTest, EachWayTakesLessThanTheOneBefore) {
  EXPECT_GT(total(Recompute::kNone), total(Recompute::kLight));
  EXPECT_GT(total(Recompute::kLight), total(Recompute::kFull));
  EXPECT_EQ(total(Recompute::kFull), total(Recompute::kOffload)) << "a CPU's memory is the host's";
  shape_.device = at::kCUDA;
  EXPECT_GT(total(Recompute::kFull), total(Recompute::kOffload));
}

TEST_F(TrainMemoryTest, AutoTakesTheFirstThatFits) {
  const auto with_room = [&](Recompute recompute) { return total(recompute) * 10 / 9 + 10; };
  EXPECT_EQ(chosen(with_room(Recompute::kNone)), Recompute::kNone);
  EXPECT_EQ(chosen(with_room(Recompute::kNone) - 100), Recompute::kLight);
  EXPECT_EQ(chosen(with_room(Recompute::kLight) - 100), Recompute::kFull);
  EXPECT_EQ(chosen(1), Recompute::kFull);
  EXPECT_EQ(chosen(0), Recompute::kNone) << "not known";
  options_.recompute = "offload";
  EXPECT_EQ(chosen(with_room(Recompute::kNone)), Recompute::kOffload);
}

TEST_F(TrainMemoryTest, LightIsNoneWhereMapsTakeTheGeneralForm) {
  options_.lora_dropout = 0.1;
  EXPECT_EQ(total(Recompute::kNone), total(Recompute::kLight));
  EXPECT_EQ(chosen(total(Recompute::kNone)), Recompute::kFull);
}

}  // namespace
}  // namespace lorry::train

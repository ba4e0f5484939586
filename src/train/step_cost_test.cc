// What one training step asks of the device, held to the budget in docs/training-step.md.
#include <gtest/gtest.h>

#include <cstdio>

#include "train/op_counter.h"
#include "train/step.h"
#include "train/test_model.h"

namespace lorry::train {
namespace {

struct Cost {
  int64_t launches, products, nodes, waits;
  std::map<std::string, int64_t> kernels;

  friend Cost operator-(const Cost& a, const Cost& b) {
    return {
        a.launches - b.launches, a.products - b.products, a.nodes - b.nodes, a.waits - b.waits, {}};
  }
};

/// Of one step over one sequence that fits a micro-batch, LoRA on all linear maps.
Cost cost_of(int64_t layers) {
  TestBucket bucket;
  write_checkpoint(**bucket, {.layers = layers});
  // In memory of its own, as on a GPU: modules of a map lie side by side.
  const auto model = load_model(**bucket, at::kBFloat16);
  const auto adapter = random_adapter(*model, {}, 0.1);
  Trainable trainable = Trainable::of_adapter(adapter, model->dtype());
  AdamW optimizer(trainable, {});
  StepRunner runner(*model, adapter, trainable, optimizer, {.max_grad_norm = 1});
  const std::vector<int32_t> ids(48, 7);
  const std::vector<int8_t> masks(48, 1);
  const std::vector<PackedRow> rows = {{{0, 0}}};
  const StepBatch batch = make_step_batch(rows,
                                          [&](Place) {
                                            return data::TokenRow{ids, masks};
                                          },
                                          {.max_length = 64, .micro_batch_tokens = 64});
  runner.run(batch, 1e-3, 1).read();
  const OpCounter counter;
  const PendingNumbers numbers = runner.run(batch, 1e-3, 1);
  return {counter.launches(), counter.products(), counter.nodes(), counter.waits(),
          counter.kernels()};
}

void print(const char* what, const Cost& cost) {
  std::printf("%-8s launches %3ld, of them products %3ld; nodes %3ld; waits %ld\n", what,
              static_cast<long>(cost.launches), static_cast<long>(cost.products),
              static_cast<long>(cost.nodes), static_cast<long>(cost.waits));
}

TEST(StepCost, OfADenseBlockAndOfAStepStayWithinTheBudget) {
  const Cost two = cost_of(2), three = cost_of(3);
  const Cost layer = three - two, rest = two - layer - layer;
  for (const auto& [name, calls] : three.kernels) {
    std::printf("  %-55s step of 3 layers %4ld\n", name.c_str(), static_cast<long>(calls));
  }
  print("layer", layer);
  print("rest", rest);
  EXPECT_LE(layer.launches, 72);
  EXPECT_LE(layer.products, 41);
  EXPECT_LE(layer.nodes, 11);
  EXPECT_LE(rest.launches, 34);
  EXPECT_EQ(three.waits, 0);
}

}  // namespace
}  // namespace lorry::train

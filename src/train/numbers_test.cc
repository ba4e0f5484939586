// Schedule, loss and optimiser against their definitions.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "train/loss.h"
#include "train/metrics.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace lorry::train {
namespace {

TEST(Schedule, LinearWarmsUpFromZeroAndEndsBeforeZero) {
  const auto schedule = *Schedule::create("linear", 1.0, 5, 15);
  EXPECT_DOUBLE_EQ(schedule.learning_rate(0), 0.0);
  EXPECT_DOUBLE_EQ(schedule.learning_rate(1), 0.2);
  EXPECT_DOUBLE_EQ(schedule.learning_rate(5), 1.0);
  EXPECT_DOUBLE_EQ(schedule.learning_rate(14), 0.1);
  EXPECT_DOUBLE_EQ(schedule.learning_rate(15), 0.0);
}

TEST(Schedule, CosineAndConstantFollowTheirFormulas) {
  EXPECT_NEAR(Schedule::create("cosine", 2.0, 0, 10)->learning_rate(5), 1.0, 1e-12);
  EXPECT_DOUBLE_EQ(Schedule::create("constant", 2.0, 5, 10)->learning_rate(0), 2.0);
  EXPECT_DOUBLE_EQ(Schedule::create("constant_with_warmup", 2.0, 4, 10)->learning_rate(2), 1.0);
}

TEST(Schedule, AnUnknownTypeIsRefusedWithTheList) {
  const auto schedule = Schedule::create("exponential", 1, 0, 1);
  ASSERT_FALSE(schedule.ok());
  EXPECT_NE(schedule.error().message.find("linear, cosine"), std::string::npos);
}

/// head_loss beside autograd over the whole of the logits.
void expect_cross_entropy(int64_t vocab, double logit_scale, double softcap) {
  at::manual_seed(1);
  const int64_t n = 300, hidden_size = 16;
  const at::Tensor hidden = at::randn({n, hidden_size}).requires_grad_(true);
  const at::Tensor head = (at::randn({vocab, hidden_size}) * 0.3).requires_grad_(true);
  const at::Tensor targets = at::randint(vocab, {n}, at::kLong);
  at::Tensor logits = at::linear(hidden, head) * logit_scale;
  if (softcap > 0) logits = at::tanh(logits / softcap) * softcap;
  const at::Tensor expected = at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum);
  torch::autograd::backward({expected / 7}, {});

  const at::Tensor head_grad = at::zeros({vocab, hidden_size});
  const HeadLoss loss = head_loss(hidden.detach(), targets, {head.detach(), logit_scale, softcap},
                                  1.0 / 7, head_grad);
  EXPECT_NEAR(loss.sum.item<double>(), expected.item<double>(), 1e-5 * expected.item<double>());
  EXPECT_TRUE(at::allclose(loss.hidden_grad, hidden.grad(), 1e-4, 1e-6));
  EXPECT_TRUE(at::allclose(head_grad, head.grad(), 1e-4, 1e-6));
}

TEST(HeadLoss, IsCrossEntropyWithItsGradients) {
  expect_cross_entropy(200'000, 1, 0);  // several chunks
}

TEST(HeadLoss, GradientsPassThroughTheScaleAndTheSoftCapOfLogits) {
  expect_cross_entropy(500, 0.25, 0);
  expect_cross_entropy(500, 1, 1.5);
  expect_cross_entropy(500, 2, 3);
}

TEST(AdamW, FollowsItsDefinition) {
  const at::Tensor plain = at::full({2}, 1.0f), decayed = at::full({2}, 1.0f);
  const Trainable trainable =
      Trainable::of_tensors({{"a.bias", plain}, {"a.weight", decayed}}, {0, 1});
  AdamW optimizer(trainable, {0.9, 0.99, 1e-8, 0.1});
  double w = 1, u = 1, m = 0, v = 0;
  for (int t = 1; t <= 3; ++t) {
    const double g = 0.5 * t, rate = 0.01;
    for (const at::Tensor& grad : trainable.grads()) grad.fill_(4 * g);
    optimizer.step(rate, at::scalar_tensor(4.0f), at::scalar_tensor(0.0f));
    m = 0.9 * m + 0.1 * g, v = 0.99 * v + 0.01 * g * g;
    const double update =
        rate * (m / (1 - std::pow(0.9, t))) / (std::sqrt(v / (1 - std::pow(0.99, t))) + 1e-8);
    w = w * (1 - rate * 0.1) - update;
    u -= update;
  }
  EXPECT_NEAR(decayed[0].item<double>(), w, 1e-6);
  EXPECT_NEAR(plain[1].item<double>(), u, 1e-6);
}

TEST(AdamW, ASkippedStepChangesNothingAndIsNotCounted) {
  const auto values_after = [](bool with_skipped) {
    const at::Tensor x = at::full({3}, 1.0f);
    const Trainable trainable = Trainable::of_tensors({{"x", x}}, {0});
    AdamW optimizer(trainable, {});
    for (int t = 0; t < 3; ++t) {
      trainable.grads()[0].fill_(0.5);
      optimizer.step(0.01, {}, at::scalar_tensor(0.0f));
      trainable.grads()[0].fill_(INFINITY);
      if (with_skipped) optimizer.step(0.01, {}, at::scalar_tensor(1.0f));
    }
    return x.detach().clone();
  };
  EXPECT_TRUE(at::equal(values_after(true), values_after(false)));
}

TEST(AdamW, WeightDecaySparesBiasesAndNorms) {
  EXPECT_TRUE(has_weight_decay("model.layers.0.self_attn.q_proj.weight"));
  EXPECT_TRUE(has_weight_decay("model.embed_tokens.weight"));
  EXPECT_FALSE(has_weight_decay("model.layers.0.self_attn.q_proj.bias"));
  EXPECT_FALSE(has_weight_decay("model.layers.0.input_layernorm.weight"));
  EXPECT_FALSE(has_weight_decay("model.layers.0.self_attn.q_norm.weight"));
  EXPECT_FALSE(has_weight_decay("model.norm.weight"));
}

TEST(ClipGrads, ScalesOnlyNormsAboveTheLimit) {
  at::Tensor grads = at::zeros({2048});
  grads.narrow(0, 1000, 100).fill_(1.0f);
  const at::Tensor norm = grad_norm(grads);
  EXPECT_NEAR(norm.item<double>(), 10.0, 1e-6);
  EXPECT_EQ(clip_divisor(norm, 20.0).item<double>(), 1.0);
  EXPECT_NEAR(clip_divisor(norm, 4.0).item<double>(), 2.5, 1e-6);
}

TEST(GradScaler, HalvesOnOverflowAndGrowsAfterTwoThousandSteps) {
  GradScaler scaler(true);
  scaler.update(true);
  EXPECT_EQ(scaler.scale(), 32768.0);
  for (int i = 0; i < 2000; ++i) scaler.update(false);
  EXPECT_EQ(scaler.scale(), 65536.0);
  GradScaler off(false);
  off.update(true);
  EXPECT_EQ(off.scale(), 1.0);
}

TEST(Metrics, ALineReadsBackExactly) {
  StepMetrics metrics{3, 1.0 / 3, 0.1, 2e-4, 0.7, 1, 512, 99.5};
  const auto back = *parse_metrics_line(metrics_line(metrics));
  EXPECT_EQ(metrics_line(back), metrics_line(metrics));
  EXPECT_EQ(back.loss, metrics.loss);
  metrics.grad_norm = INFINITY;
  EXPECT_NE(metrics_line(metrics).find("\"grad_norm\":null"), std::string::npos);
}

TEST(Report, EscapesNamesAndDrawsTheCurve) {
  LossCurve curve(2);
  curve.add({1, 2.0});
  curve.add({2, 1.0});
  const std::string page = report_html("<m> & d", curve, Json::object());
  EXPECT_NE(page.find("&lt;m&gt; &amp; d"), std::string::npos);
  EXPECT_NE(page.find("<polyline"), std::string::npos);
}

TEST(LossCurve, HasAThousandMeansHoweverLongTheRun) {
  LossCurve curve(2500);
  for (int64_t step = 1; step <= 2500; ++step) {
    curve.add({step, step == 5 ? INFINITY : static_cast<double>(step)});
  }
  const auto points = curve.points();
  ASSERT_EQ(points.size(), 834u);  // stretches of 3
  EXPECT_EQ(points[0].step, 3);
  EXPECT_EQ(points[0].loss, 2);
  EXPECT_EQ(points[1].loss, 5);  // the mean of 4 and 6
  EXPECT_EQ(points.back().step, 2500);
}

}  // namespace
}  // namespace lorry::train

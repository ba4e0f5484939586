// Whether an export computes what was trained: its logits against the trained model's, measured
// with what rounding alone does to them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/lora.h"
#include "model/transformer.h"

namespace lorry::train {

/// Tokens that exports are compared on, at most.
inline constexpr int64_t kCheckTokens = 256;

/// What a trained model answers to a few tokens. Taken before its weights are freed, so that the
/// exported model never lies beside them.
struct TrainedLogits {
  std::vector<int64_t> input_ids;
  at::Tensor logits;  ///< (T, V) float32 on the CPU
  double spread = 0;  ///< rms of the logits around their mean
  double noise = 0;   ///< relative rms that rounding alone makes
  /// Where training saw a quantised base: what that answers, with the adapter. `logits` are then
  /// those of the checkpoint's own weights with it, which is what a merge is made of.
  at::Tensor on_quantised_base;
};

/// Runs `input_ids` (T) through the model with `adapter` (may be null) twice: as it is, and with
/// every matrix of the blocks and of the adapter moved by errors of the size that rounding to
/// `stored_dtype` ("float32", "bfloat16", "float16") or to the model's own makes. The second run
/// knows nothing of merging, so a fault in it cannot hide in the noise. The same on every call.
/// Holds one block's weights twice, no more. The weights are as before when it returns.
TrainedLogits run_trained(const model::Transformer& model,
                          const std::shared_ptr<const model::LoraAdapter>& adapter,
                          std::vector<int64_t> input_ids, std::string_view stored_dtype);
/// The same, reading the blocks one after another.
Result<TrainedLogits> run_trained(model::BlockwiseModel& model,
                                  const std::shared_ptr<const model::LoraAdapter>& adapter,
                                  std::vector<int64_t> input_ids, std::string_view stored_dtype);
/// The logits alone, (T, V) float32 on the CPU; of a model in any format.
at::Tensor answer(const model::Transformer& model,
                  const std::shared_ptr<const model::LoraAdapter>& adapter,
                  const std::vector<int64_t>& input_ids);

enum class MergeVerdict {
  kSame,      ///< within what rounding makes
  kDoubtful,  ///< more than expected, less than what a fault makes
  kWrong,     ///< beyond rounding: a wrong scale, a tensor that is missing or another's
};

/// How far an export's logits are from those of what it was made of. Both numbers are rms relative
/// to the spread of the trained logits.
struct MergeCheck {
  double gap = 0, noise = 0;
  double max_abs = 0;  ///< largest difference of two logits
  int64_t tokens = 0;
  /// The same as `gap` to the logits of the quantised base that was trained on: what going back to
  /// the checkpoint's own weights changes. No part of the verdict.
  std::optional<double> base_gap;

  MergeVerdict verdict() const;
  /// "0.021 (relative rms), where rounding alone makes 0.018"
  std::string describe() const;
};

MergeCheck compare(const TrainedLogits& trained, const model::Transformer& exported);
/// The same, reading the blocks one after another.
Result<MergeCheck> compare(const TrainedLogits& trained, model::BlockwiseModel& exported);

}  // namespace lorry::train

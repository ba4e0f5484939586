// What a training will take, before it begins; free of libtorch like train.h.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "train/train.h"

namespace lorry::train {

/// Estimates in bytes, of the host or (on a GPU) of the device.
struct TrainMemory {
  int64_t weights_bytes = 0;  ///< once: the merged model is checked after the trained one is freed
  int64_t widened_bytes = 0;  ///< of a quantised base: its largest matrix, widened for a product
  int64_t state_bytes = 0;    ///< trained parameters, gradients, optimiser
  int64_t activation_bytes = 0;  ///< of the largest forward pass
  int64_t logits_bytes = 0;      ///< on a GPU; the host's are among the libraries' own
  int64_t copy_bytes = 0;        ///< on the host: of a checkpoint while it is written
  int64_t total_bytes = 0;       ///< all of it, with the libraries' own
};

/// Counts are those that `train` with the same options will report; bytes of memory are estimates.
struct TrainPlan {
  int64_t examples = 0;  ///< in the data set
  int64_t rows = 0;      ///< that are trained on, over all epochs; packed where packing is on
  int64_t steps = 0;
  int64_t tokens = 0;              ///< trained on, over all epochs, after cutting to max_length
  int64_t cut_examples = 0;        ///< longer than max_length, counted each time they come
  int64_t longest = 0;             ///< tokens of the longest example, uncut
  int64_t micro_batch_tokens = 0;  ///< tokens of the largest forward pass
  int64_t trained_parameters = 0;
  double flops = 0;  ///< operations of all forward and backward passes, about (flops.h)

  bool on_gpu = false;
  std::string recompute;  ///< none, light, full or offload: what auto comes to here and now
  TrainMemory memory;     ///< with it
  /// Of every way to recompute that changes something here, by name.
  std::vector<std::pair<std::string, TrainMemory>> memory_by_recompute;

  // Results in the bucket, in bytes.
  int64_t checkpoint_bytes = 0;
  int64_t adapter_bytes = 0;  ///< 0 in full training
  int64_t fused_bytes = 0;

  /// What train would warn of, or refuse to begin for: sentences.
  std::vector<std::string> warnings;
};

/// Plays the run through without computing: the same order, the same packing, the same cuts. Needs
/// the model and the tokens in the bucket, no GPU: device "cuda" plans for one that is not here.
Result<TrainPlan> plan_training(const TrainOptions& options);

}  // namespace lorry::train

// What one engine step reads, on the model's device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lorry::ops {

/// T new tokens of S sequences, concatenated without padding, with the sequences' places in the
/// paged cache. Made once a step by `generate::make_step_inputs` with a single copy from host to
/// device, and read by every layer: nothing here is changed or made again while the step runs. The
/// tensors are views of one buffer, contiguous, on one device.
///
/// A cache block holds `block_tokens` tokens; slot s is token s % block_tokens of block
/// s / block_tokens.
struct StepInputs {
  at::Tensor input_ids;   ///< (T) int64
  at::Tensor positions;   ///< (T) int64: of each token in its sequence, from 0
  at::Tensor slots;       ///< (T) int64: where the keys and values of each token are written
  at::Tensor logit_rows;  ///< (R) int64: tokens whose logits are wanted, ascending
  at::Tensor
      query_starts;  ///< (S + 1) int32: 0, then the end of each sequence's new tokens; last T
  at::Tensor sequence_lengths;  ///< (S) int32: tokens of each sequence, the new ones included
  /// (S, blocks of the longest sequence) int32: the cache blocks of each sequence in order; what
  /// lies after a sequence's last block is 0 and must not be read.
  at::Tensor block_table;
  at::Tensor adapter_of_token;  ///< (T) int32: index into the step's adapters

  int64_t tokens = 0;       ///< T
  int64_t sequences = 0;    ///< S
  int64_t max_query = 0;    ///< most new tokens of one sequence
  int64_t max_context = 0;  ///< most tokens of one sequence
  int64_t block_tokens = 0;
};

}  // namespace lorry::ops

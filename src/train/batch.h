// Micro-batches: the tokens of several examples concatenated, ready for a forward pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "data/token_shard.h"
#include "train/rows.h"

namespace lorry::train {

/// One forward and backward pass. T tokens of S sequences, N targets. An example is a sequence:
/// attention never crosses from one to another, whether they share a packed row or not.
///
/// The tensors are views of one buffer, so that a GPU gets them by one copy.
struct MicroBatch {
  at::Tensor input_ids, positions;  ///< (T) int64
  std::vector<int64_t> cu_seqlens;  ///< (S + 1) 0, then the end of each sequence
  at::Tensor target_rows;           ///< (N) int64: tokens whose next token is a target
  at::Tensor targets;               ///< (N) int64: those next tokens
  at::Tensor target_sequence;       ///< (N) int64 in [0, S): the sequence of each target
  at::Tensor dropout_keys;          ///< (T) int64, see ops/dropout.h; undefined without dropout
  at::Tensor cu_seqlens_device;     ///< cu_seqlens as int32, on a GPU alone
  at::Tensor ends;                  ///< cu_seqlens in the buffer

  /// The same on another device. Does not wait for the copy out of pinned memory.
  MicroBatch to(at::Device device) const;
};

/// What a step is made of.
struct StepBatch {
  std::vector<MicroBatch> micro_batches;
  int64_t tokens = 0;          ///< of its examples, after cutting
  int64_t targets = 0;         ///< that the loss is divided by
  int64_t cut_examples = 0;    ///< longer than allowed
  int64_t empty_examples = 0;  ///< nothing to learn from
  int32_t max_id = 0;          ///< largest token id
};

struct BatchOptions {
  int64_t max_length = 0;          ///< tokens; longer examples are cut at the end
  int64_t micro_batch_tokens = 0;  ///< at most, unless one example is longer
  at::Device device = at::kCPU;    ///< they are made for; for a GPU they lie in pinned memory
  /// With dropout: what decides the masks beside the example itself, one value an epoch.
  std::optional<uint64_t> dropout_seed;
};

/// Tokens of `row` up to the last that matters: a position counts if the next token is a target,
/// and nothing after the last such position is computed. 0 if there is no target.
int64_t useful_length(const data::TokenRow& row, int64_t max_length);

/// Places lengths into few bins of `capacity` (the fewer of best-fit decreasing and of the order
/// that they have), and into those as evenly as it can: longest first, each into the emptiest bin.
/// A length above the capacity raises it. Indices as pack() gives them.
std::vector<std::vector<int32_t>> balance(std::span<const int64_t> lengths, int64_t capacity);

/// Concatenates the examples of `rows` into the fewest micro-batches, of about as many tokens each,
/// so that passes are of one size and none is short. Since the loss is a sum over targets and
/// dropout belongs to the example, where they are cut does not change the result.
/// `token_row` fetches an example. Thread-safe if that is.
StepBatch make_step_batch(std::span<const PackedRow> rows,
                          const std::function<data::TokenRow(Place)>& token_row,
                          const BatchOptions& options);

}  // namespace lorry::train

// Flat runs: the tokens of several examples one behind the other, ready for a forward pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "data/token_shard.h"
#include "train/rows.h"

namespace lorry::train {

/// One forward pass. T tokens, N targets.
struct FlatRun {
  at::Tensor input_ids, positions;  ///< (T) int64
  std::vector<int64_t> cu_seqlens;  ///< 0, then the end of each sequence
  at::Tensor target_rows;           ///< (N) int64: rows of the run whose next token is a target
  at::Tensor targets;               ///< (N) int64: those tokens
};

/// What a step is made of.
struct StepBatch {
  std::vector<FlatRun> runs;
  int64_t tokens = 0;          ///< of its examples, after cutting
  int64_t targets = 0;         ///< that the loss is divided by
  int64_t cut_examples = 0;    ///< longer than allowed
  int64_t empty_examples = 0;  ///< nothing to learn from
  int32_t max_id = 0;          ///< largest token id
};

/// Tokens of `row` up to the last that matters: a position counts if the next token is a target,
/// and nothing behind the last such position is computed. 0 if there is no target.
int64_t useful_length(const data::TokenRow& row, int64_t max_length);

/// Lays the examples of `rows` into runs of at most `run_tokens` tokens (a longer example has a run
/// to itself). Since the loss is a sum over targets, the cut into runs does not change it.
/// `token_row` fetches an example; `device` is where the tensors go.
StepBatch make_step_batch(std::span<const Row> rows,
                          const std::function<data::TokenRow(Place)>& token_row, int64_t max_length,
                          int64_t run_tokens, at::Device device);

}  // namespace lorry::train

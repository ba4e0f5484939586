#include "generate/sampler.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace lorry::generate {
namespace {

using ops::cpu::Bf16;

constexpr int64_t kLogitsPerThread = 1 << 15;  // fewer take less time than waking a thread

/// logits: (R, V) contiguous on the CPU.
LogitRow row_of(const at::Tensor& logits, int64_t row) {
  const int64_t size = logits.size(1);
  LogitRow out{nullptr, nullptr, size};
  if (logits.scalar_type() == at::kFloat) {
    out.floats = logits.const_data_ptr<float>() + row * size;
  } else {
    out.bf16 = static_cast<const Bf16*>(logits.const_data_ptr()) + row * size;
  }
  return out;
}

/// work(sampler, logits of row i, i) for each of `rows` rows, over the threads.
template <typename Work>
void for_each_row(const at::Tensor& any, size_t rows, const Work& work) {
  const bool read_in_place = any.scalar_type() == at::kFloat || any.scalar_type() == at::kBFloat16;
  const at::Tensor logits = (read_in_place ? any : any.to(at::kFloat)).contiguous();
  const int64_t grain = std::max<int64_t>(1, kLogitsPerThread / logits.size(1));
  at::parallel_for(0, static_cast<int64_t>(rows), grain, [&](int64_t begin, int64_t end) {
    thread_local RowSampler sampler;  // keeps its memory from step to step
    for (int64_t i = begin; i < end; ++i) work(sampler, row_of(logits, i), i);
  });
}

std::vector<TokenEvent> sample_on_cpu(const at::Tensor& logits, std::span<const SamplingRow> rows) {
  std::vector<TokenEvent> events(rows.size());
  for_each_row(logits, rows.size(), [&](RowSampler& sampler, const LogitRow& row, int64_t i) {
    events[i] = sampler.sample(row, rows[i]);
  });
  return events;
}

std::vector<TokenScore> score_on_cpu(const at::Tensor& logits, std::span<const ScoringRow> rows) {
  std::vector<TokenScore> scores(rows.size());
  for_each_row(logits, rows.size(), [&](RowSampler& sampler, const LogitRow& row, int64_t i) {
    scores[i] = sampler.score(row, rows[i].id, rows[i].top_logprobs);
  });
  return scores;
}

/// What a device leaves of rows that need no more than their largest logits.
class ReducedRows {
 public:
  ReducedRows(const at::Tensor& logits, std::span<const SamplingRow> rows)
      : rows_(rows), events_(rows.size()) {
    std::vector<size_t> greedy, top_k;
    for (size_t i = 0; i < rows.size(); ++i) {
      const auto& params = rows[i].request->sampling;
      if (has_edits(*rows[i].request) || rows[i].request->top_logprobs >= 0) {
        whole_.push_back(i);
      } else if (is_greedy(params)) {
        greedy.push_back(i);
      } else if (params.top_k > 0 && params.top_k <= kMostCandidates) {
        top_k.push_back(i);
      } else {
        whole_.push_back(i);
      }
    }
    if (!greedy.empty()) take_likeliest(logits, greedy);
    if (!top_k.empty()) draw_from_top(logits, top_k);
    if (!whole_.empty()) sample_whole(logits);
  }
  std::vector<TokenEvent> events() && { return std::move(events_); }

 private:
  static constexpr int64_t kMostCandidates = 256;
  static constexpr int64_t kSpare = 32;  // beyond top_k, to see whether equal logits go on

  static at::Tensor pick(const at::Tensor& logits, const std::vector<size_t>& rows) {
    if (static_cast<int64_t>(rows.size()) == logits.size(0)) return logits;
    const std::vector<int64_t> index(rows.begin(), rows.end());
    return logits.index_select(0, at::tensor(index, at::kLong).to(logits.device()));
  }

  void take_likeliest(const at::Tensor& logits, const std::vector<size_t>& rows) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    // A NaN must never win.
    const at::Tensor numbers =
        at::nan_to_num(pick(logits, rows), -kInfinity, kInfinity, -kInfinity);
    const auto [most, indices] = numbers.max(-1);
    const at::Tensor ids = indices.to(at::kCPU), top = most.to(at::kCPU, at::kFloat);
    for (size_t i = 0; i < rows.size(); ++i) {
      TokenEvent& event = events_[rows[i]];
      event.id = static_cast<int32_t>(ids.const_data_ptr<int64_t>()[i]);
      if (top.const_data_ptr<float>()[i] == -kInfinity) event = no_logit();
    }
  }

  void draw_from_top(const at::Tensor& logits, const std::vector<size_t>& rows) {
    int64_t most = 0;
    for (const size_t i : rows) most = std::max(most, rows_[i].request->sampling.top_k);
    most = std::min(most + kSpare, logits.size(1));
    const auto [values, indices] = pick(logits, rows).topk(most);
    const at::Tensor top = values.to(at::kCPU, at::kFloat), ids = indices.to(at::kCPU);
    std::vector<Candidate> candidates;
    std::vector<double> weights;
    for (size_t i = 0; i < rows.size(); ++i) {
      const float* row = top.const_data_ptr<float>() + static_cast<int64_t>(i) * most;
      const int64_t* row_ids = ids.const_data_ptr<int64_t>() + static_cast<int64_t>(i) * most;
      const auto& params = rows_[rows[i]].request->sampling;
      // Where equal logits fill the list, others of lower id may have been left out.
      const bool all = most == logits.size(1) || row[most - 1] < row[params.top_k - 1];
      if (!all || !std::isfinite(row[0])) {
        whole_.push_back(rows[i]);
        continue;
      }
      candidates.clear();
      for (int64_t j = 0; j < most; ++j) {
        candidates.push_back({row[j], static_cast<int32_t>(row_ids[j])});
      }
      events_[rows[i]].id =
          draw_candidate(params, *rows_[rows[i]].rng, row[0], kNotSummed, candidates, weights);
    }
  }

  void sample_whole(const at::Tensor& logits) {
    std::sort(whole_.begin(), whole_.end());
    std::vector<SamplingRow> rows;
    for (const size_t i : whole_) rows.push_back(rows_[i]);
    std::vector<TokenEvent> events = sample_on_cpu(pick(logits, whole_).to(at::kCPU), rows);
    for (size_t i = 0; i < whole_.size(); ++i) events_[whole_[i]] = std::move(events[i]);
  }

  std::span<const SamplingRow> rows_;
  std::vector<TokenEvent> events_;
  std::vector<size_t> whole_;  // rows that need all of their logits
};

}  // namespace

std::vector<TokenScore> detail::score_rows_reduced(const at::Tensor& logits,
                                                   std::span<const ScoringRow> rows) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  std::vector<int64_t> ids;
  int64_t most = 1;
  for (const ScoringRow& row : rows) {
    ids.push_back(row.id);
    most = std::max(most, row.top_logprobs);
  }
  const at::Tensor numbers = at::nan_to_num(logits.to(at::kFloat), -kInfinity, {}, -kInfinity);
  const at::Tensor norms = numbers.logsumexp(-1, /*keepdim=*/true);
  const at::Tensor index = at::tensor(ids, at::kLong).unsqueeze(1).to(logits.device());
  const at::Tensor chosen = (numbers.gather(1, index) - norms).to(at::kCPU);
  most = std::min(most, logits.size(1));
  const auto [values, indices] = numbers.topk(most);
  const at::Tensor top = (values - norms).to(at::kCPU), top_ids = indices.to(at::kCPU);
  std::vector<TokenScore> scores(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto begin = static_cast<int64_t>(i) * most;
    scores[i] = {rows[i].id, chosen.const_data_ptr<float>()[i], {}};
    for (int64_t j = begin; j < begin + std::min(most, rows[i].top_logprobs); ++j) {
      scores[i].top.push_back({static_cast<int32_t>(top_ids.const_data_ptr<int64_t>()[j]),
                               top.const_data_ptr<float>()[j]});
    }
  }
  return scores;
}

std::vector<TokenScore> score_rows(const at::Tensor& logits, std::span<const ScoringRow> rows) {
  return logits.is_cpu() ? score_on_cpu(logits, rows) : detail::score_rows_reduced(logits, rows);
}

std::vector<TokenEvent> detail::sample_rows_reduced(const at::Tensor& logits,
                                                    std::span<const SamplingRow> rows) {
  return ReducedRows(logits, rows).events();
}

std::vector<TokenEvent> sample_rows(const at::Tensor& logits, std::span<const SamplingRow> rows) {
  return logits.is_cpu() ? sample_on_cpu(logits, rows) : detail::sample_rows_reduced(logits, rows);
}

}  // namespace lorry::generate

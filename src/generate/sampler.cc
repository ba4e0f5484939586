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

/// As the rows are read in place.
at::Tensor readable(const at::Tensor& logits) {
  const auto dtype = logits.scalar_type();
  const bool in_place = dtype == at::kFloat || dtype == at::kBFloat16;
  return (in_place ? logits : logits.to(at::kFloat)).contiguous();
}

/// work(sampler, i) for each of `count` items of about one row, over the threads.
template <typename Work>
void over_threads(size_t count, int64_t vocab_size, const Work& work) {
  const int64_t grain = std::max<int64_t>(1, kLogitsPerThread / vocab_size);
  at::parallel_for(0, static_cast<int64_t>(count), grain, [&](int64_t begin, int64_t end) {
    thread_local RowSampler sampler;  // keeps its memory from step to step
    for (int64_t i = begin; i < end; ++i) work(sampler, static_cast<size_t>(i));
  });
}

/// Whether row i counts, once those before it are sampled.
bool counts(std::span<const SamplingRow> rows, const std::vector<TokenEvent>& events, size_t i) {
  return i == 0 || rows[i - 1].draft < 0 || events[i - 1].id == rows[i - 1].draft;
}

/// Where the rows of each sequence begin; at the end, the number of rows.
std::vector<size_t> sequence_starts(std::span<const SamplingRow> rows) {
  std::vector<size_t> starts;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i == 0 || rows[i - 1].draft < 0) starts.push_back(i);
  }
  starts.push_back(rows.size());
  return starts;
}

std::vector<TokenEvent> sample_on_cpu(const at::Tensor& any, std::span<const SamplingRow> rows) {
  const at::Tensor logits = readable(any);
  std::vector<TokenEvent> events(rows.size());
  const std::vector<size_t> starts = sequence_starts(rows);
  over_threads(starts.size() - 1, logits.size(1), [&](RowSampler& sampler, size_t sequence) {
    for (size_t i = starts[sequence]; i < starts[sequence + 1] && counts(rows, events, i); ++i) {
      events[i] = sampler.sample(row_of(logits, static_cast<int64_t>(i)), rows[i]);
    }
  });
  return events;
}

std::vector<TokenScore> score_on_cpu(const at::Tensor& any, std::span<const ScoringRow> rows) {
  const at::Tensor logits = readable(any);
  std::vector<TokenScore> scores(rows.size());
  over_threads(rows.size(), logits.size(1), [&](RowSampler& sampler, size_t i) {
    scores[i] =
        sampler.score(row_of(logits, static_cast<int64_t>(i)), rows[i].id, rows[i].top_logprobs);
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
      // All rows of a sequence go the same way.
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
    for (size_t i = 0; i < rows.size(); ++i) {
      if (!counts(rows, events_, i)) events_[i] = {};
    }
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

  /// Whether one of the rows of the sequence that begins with rows[i], all of them in `rows`, is
  /// so.
  template <typename Predicate>
  bool any_of_sequence(const std::vector<size_t>& rows, size_t i, const Predicate& is_so) const {
    for (; !is_so(i); ++i) {
      if (rows_[rows[i]].draft < 0) return false;
    }
    return true;
  }

  void draw_from_top(const at::Tensor& logits, const std::vector<size_t>& rows) {
    int64_t most = 0;
    for (const size_t i : rows) most = std::max(most, rows_[i].request->sampling.top_k);
    most = std::min(most + kSpare, logits.size(1));
    const auto [values, indices] = pick(logits, rows).topk(most);
    const at::Tensor top = values.to(at::kCPU, at::kFloat), ids = indices.to(at::kCPU);
    const auto top_of = [&](size_t i) {
      return top.const_data_ptr<float>() + static_cast<int64_t>(i) * most;
    };
    std::vector<Candidate> candidates;
    std::vector<double> weights;
    const auto needs_all = [&](size_t i) {
      const float* row = top_of(i);
      const int64_t top_k = rows_[rows[i]].request->sampling.top_k;
      // Where equal logits fill the list, others of lower id may have been left out.
      const bool all = most == logits.size(1) || row[most - 1] < row[top_k - 1];
      return !all || !std::isfinite(row[0]);
    };
    bool whole = false;  // whether all logits of the current sequence are copied
    for (size_t i = 0; i < rows.size(); ++i) {
      const bool first = rows[i] == 0 || rows_[rows[i] - 1].draft < 0;
      if (first) whole = any_of_sequence(rows, i, needs_all);
      if (whole) {
        whole_.push_back(rows[i]);
        continue;
      }
      if (!counts(rows_, events_, rows[i])) continue;
      const float* row = top_of(i);
      const int64_t* row_ids = ids.const_data_ptr<int64_t>() + static_cast<int64_t>(i) * most;
      const auto& params = rows_[rows[i]].request->sampling;
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

#include "model/shard.h"

#include <fmt/format.h>

#include <algorithm>

namespace lorry::model {
namespace {

class Sharder {
 public:
  Sharder(const ModelSpec& whole, int64_t rank, int64_t ranks)
      : whole_(whole), rank_(rank), ranks_(ranks) {
    shard_.whole = shard_.spec = whole;
    for (const TensorSpec& tensor : whole.tensors) shard_.tensors.push_back({0, tensor.shape[0]});
    for (const LinearSpec& linear : whole.linears) {
      LinearShard all{.columns = {0, linear.in}};
      for (const Module& module : linear.modules) all.rows.push_back({{0, module.rows}});
      shard_.linears.push_back(std::move(all));
    }
  }

  Result<ModelShard> run() {
    for (BlockSpec& block : shard_.spec.layers) {
      LORRY_TRY(std::visit([this](auto& spec) { return cut(spec); }, block.attention));
      LORRY_TRY(std::visit([this](auto& spec) { return cut(spec); }, block.mlp));
    }
    cut_head();
    return std::move(shard_);
  }

 private:
  Result<> cut(AttentionSpec& spec) {
    if (spec.norm_over_heads) {
      return unsupported(fmt::format(
          "--tensor-parallel-size: {} normalises queries over all heads, which no rank holds "
          "alone; serve it with --tensor-parallel-size 1",
          whole_.architecture));
    }
    const int64_t d = spec.head_dim, heads = spec.heads, kv_heads = spec.kv_heads;
    LORRY_ASSIGN(const Range own, share(heads, "attention heads"));
    Range kv{rank_ * kv_heads / ranks_, std::max<int64_t>(kv_heads / ranks_, 1)};
    if (kv_heads % ranks_ != 0 && ranks_ % kv_heads != 0) {
      return indivisible(kv_heads, "key/value heads");
    }
    LORRY_TRY(keep_rows(spec.qkv, {{own.first * d, own.count * d},
                                   {(heads + kv.first) * d, kv.count * d},
                                   {(heads + kv_heads + kv.first) * d, kv.count * d}}));
    LORRY_TRY(keep_columns(spec.out, {own.first * d, own.count * d}));
    if (spec.sinks >= 0) keep_tensor(spec.sinks, own);
    spec.heads = own.count;
    spec.kv_heads = kv.count;
    return {};
  }

  Result<> cut(MlaSpec& spec) {
    LORRY_ASSIGN(const Range own, share(spec.heads, "attention heads"));
    const auto of_heads = [&own](int64_t rows) {
      return Range{own.first * rows, own.count * rows};
    };
    LORRY_TRY(keep_rows(spec.q, {of_heads(spec.nope_dim + spec.rope_dim)}));
    LORRY_TRY(keep_rows(spec.kv_up, {of_heads(spec.nope_dim + spec.value_dim)}));
    LORRY_TRY(keep_columns(spec.out, of_heads(spec.value_dim)));
    spec.heads = own.count;
    return {};
  }

  Result<> cut(MlpSpec& spec) {
    LORRY_ASSIGN(const Range own, share(spec.width, "rows of an MLP"));
    LORRY_TRY(keep_rows(spec.gate_up, {own, {spec.width + own.first, own.count}}));
    LORRY_TRY(keep_columns(spec.down, own));
    spec.width = own.count;
    return {};
  }

  /// Every rank has a part of every expert, and the router whole: all choose alike.
  Result<> cut(MoeSpec& spec) {
    for (MlpSpec& expert : spec.experts) LORRY_TRY(cut(expert));
    return spec.shared ? cut(*spec.shared) : Result<>();
  }

  void cut_head() {
    const int64_t vocab = whole_.vocab_size, begin = vocab * rank_ / ranks_;
    shard_.head = {begin, vocab * (rank_ + 1) / ranks_ - begin};
    if (whole_.head != whole_.embed) keep_tensor(whole_.head, shard_.head);
  }

  Error indivisible(int64_t count, const char* what) const {
    return usage_error(fmt::format("--tensor-parallel-size {} does not divide the model's {} {}",
                                   ranks_, count, what));
  }

  Result<Range> share(int64_t count, const char* what) const {
    if (count % ranks_ != 0) return indivisible(count, what);
    return Range{rank_ * (count / ranks_), count / ranks_};
  }

  void keep_tensor(int index, Range rows) {
    shard_.tensors[index] = rows;
    shard_.spec.tensors[index].shape[0] = rows.count;
  }

  /// kept: of all the map's rows, ascending and apart.
  Result<> keep_rows(int index, const std::vector<Range>& kept) {
    LinearSpec& linear = shard_.spec.linears[index];
    LORRY_TRY(check(linear, Shard::kRows));
    int64_t first_row = 0;
    for (size_t m = 0; m < linear.modules.size(); ++m) {
      Module& module = linear.modules[m];
      std::vector<Range> rows = within(kept, module);
      module.first_row = first_row;
      module.rows = 0;
      for (const Range& range : rows) module.rows += range.count;
      first_row += module.rows;
      shard_.linears[index].rows[m] = std::move(rows);
    }
    return {};
  }

  /// The parts of `kept` that lie in a module, counted from its first row.
  static std::vector<Range> within(const std::vector<Range>& kept, const Module& module) {
    std::vector<Range> rows;
    for (const Range& range : kept) {
      const int64_t begin = std::max(range.first, module.first_row);
      const int64_t end = std::min(range.first + range.count, module.first_row + module.rows);
      if (begin < end) rows.push_back({begin - module.first_row, end - begin});
    }
    return rows;
  }

  Result<> keep_columns(int index, Range columns) {
    LinearSpec& linear = shard_.spec.linears[index];
    LORRY_TRY(check(linear, Shard::kColumns));
    linear.in = columns.count;
    shard_.linears[index].columns = columns;
    shard_.linears[index].has_bias = rank_ == 0;
    return {};
  }

  static Result<> check(const LinearSpec& linear, Shard wanted) {
    if (linear.shard == wanted) return {};
    return unsupported(fmt::format("--tensor-parallel-size: {} cannot be divided among ranks",
                                   linear.modules[0].name));
  }

  const ModelSpec& whole_;
  int64_t rank_, ranks_;
  ModelShard shard_;
};

}  // namespace

Result<ModelShard> shard_model(const ModelSpec& whole, int64_t rank, int64_t ranks) {
  return Sharder(whole, rank, ranks).run();
}

}  // namespace lorry::model

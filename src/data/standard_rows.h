// Rows of a raw batch that need no JSON value to be standardized.
#pragma once

#include <arrow/array.h>
#include <arrow/record_batch.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/conversations.h"
#include "data/standard_builder.h"

namespace lorry::data {

/// A column of strings, 32-bit or 64-bit offsets, or one that is always null.
class StringColumn {
 public:
  /// nullopt if `array` holds anything else.
  static std::optional<StringColumn> of(const arrow::Array& array);
  /// A view without data if the value is null.
  std::string_view at(int64_t i) const {
    if (null_ || (nulls_ && nulls_->IsNull(i))) return {};
    if (small_) return {data_ + small_[i], size_t(small_[i + 1] - small_[i])};
    return {data_ + large_[i], size_t(large_[i + 1] - large_[i])};
  }

 private:
  bool null_ = false;
  const arrow::Array* nulls_ = nullptr;
  const int32_t* small_ = nullptr;
  const int64_t* large_ = nullptr;
  const char* data_ = "";
};

/// A list column of {role, content} structs.
class TurnColumn {
 public:
  static std::optional<TurnColumn> of(const RowRules& rules, const arrow::Array& array);
  /// Appends the row's turns to `turns`; false if one of them is unusual.
  bool read(int64_t row, std::vector<TurnView>& turns) const;

 private:
  bool read_turn(int64_t i, TurnView& turn) const;

  const RoleNames* role_names_ = nullptr;
  const arrow::Array* list_ = nullptr;
  const int32_t* small_ = nullptr;
  const int64_t* large_ = nullptr;
  const arrow::Array* turns_ = nullptr;
  std::vector<std::shared_ptr<arrow::Array>> fields_;  ///< keeps the columns below alive
  std::vector<StringColumn> roles_, contents_;         ///< the first that is not null counts
  std::vector<StringColumn> reasonings_, tool_call_ids_, names_;
  std::vector<const arrow::Array*> unusual_;  ///< make a turn unusual where they hold anything
  std::vector<const arrow::Array*> marks_;    ///< where they hold anything but "learned"
};

/// The rows of one batch. Not thread-safe; the batch must outlive it.
class FastRows {
 public:
  /// nullopt if the columns that `rules` name are of other types than these rows have.
  static std::optional<FastRows> of(const RowRules& rules, const arrow::RecordBatch& batch);

  /// Appends the row if it is kept and nothing about it is unusual; else false, and the row is for
  /// standardize_row. `needed` is told what the row has.
  arrow::Result<bool> append(int64_t row, StandardBuilder& builder, OptionalColumns& needed);

 private:
  struct Side {  ///< a string that is one turn, or a list of turns
    std::string_view role;
    std::optional<StringColumn> text;
    std::optional<TurnColumn> turns;
  };
  /// A column of text that must say nothing new, for rows to be usual.
  struct Watched {
    const arrow::Array* array;
    std::optional<StringColumn> text;
  };
  bool find_others(const RowRules& rules, const arrow::RecordBatch& batch);
  bool read(int64_t row);
  bool add_input(int64_t row);
  bool add_system(int64_t row);
  bool says_nothing_new(const Watched& column, int64_t row) const;

  RowFormat format_ = RowFormat::kText;
  std::vector<Side> sides_;
  std::optional<StringColumn> text_, input_, system_;
  std::vector<const arrow::Array*> others_;  ///< tools, history, reasoning, media
  std::vector<Watched> watched_;
  std::vector<const arrow::Array*> marks_;  ///< label, weight
  std::vector<TurnView> turns_;
  std::string joined_;
};

}  // namespace lorry::data

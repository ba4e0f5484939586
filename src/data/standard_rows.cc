#include "data/standard_rows.h"

#include <arrow/type.h>

#include <algorithm>

#include "data/marks.h"
#include "data/roles.h"
#include "data/row_values.h"

namespace lorry::data {
namespace {

/// Whether there may be a placeholder. Written for the vectoriser: whole blocks, no early exit.
bool has_double_brace(std::string_view text) {
  constexpr size_t kBlock = 64;
  const char* p = text.data();
  size_t i = 0;
  for (; i + kBlock < text.size(); i += kBlock) {
    unsigned char found = 0;
    for (size_t k = 0; k < kBlock; ++k) {
      found |= static_cast<unsigned char>(p[i + k] == '{') & (p[i + k + 1] == '{');
    }
    if (found) return true;
  }
  for (; i + 1 < text.size(); ++i) {
    if (p[i] == '{' && p[i + 1] == '{') return true;
  }
  return false;
}

/// Whether the value is null or a list without elements: what standardize_row passes over.
bool is_nothing(const arrow::Array& array, int64_t i) {
  if (array.type_id() == arrow::Type::NA || array.IsNull(i)) return true;
  if (array.type_id() == arrow::Type::LIST) {
    return static_cast<const arrow::ListArray&>(array).value_length(i) == 0;
  }
  if (array.type_id() == arrow::Type::LARGE_LIST) {
    return static_cast<const arrow::LargeListArray&>(array).value_length(i) == 0;
  }
  return false;
}

/// Whether a mark leaves what it marks to be learned: null, true or 1.
bool says_learned(const arrow::Array& array, int64_t i) {
  if (is_nothing(array, i)) return true;
  switch (array.type_id()) {
    case arrow::Type::BOOL:
      return static_cast<const arrow::BooleanArray&>(array).Value(i);
    case arrow::Type::INT64:
      return static_cast<const arrow::Int64Array&>(array).Value(i) == 1;
    case arrow::Type::DOUBLE:
      return static_cast<const arrow::DoubleArray&>(array).Value(i) == 1;
    default:
      return false;  // standardize_row looks
  }
}

bool all_say_learned(const std::vector<const arrow::Array*>& marks, int64_t i) {
  return std::all_of(marks.begin(), marks.end(),
                     [&](const auto* mark) { return says_learned(*mark, i); });
}

/// The first of the columns that is not null there.
std::string_view first_at(const std::vector<StringColumn>& columns, int64_t i) {
  for (const auto& column : columns) {
    const auto text = column.at(i);
    if (text.data() != nullptr) return text;
  }
  return {};
}

/// The first of the columns that holds a character there.
std::string_view first_text_at(const std::vector<StringColumn>& columns, int64_t i) {
  for (const auto& column : columns) {
    const auto text = column.at(i);
    if (!text.empty()) return text;
  }
  return {};
}

/// What standardize_row calls the role; empty for roles that it has more to do about.
std::string_view plain_role(std::string_view name, const RoleNames& more) {
  if (more.empty()) {
    if (name == "user" || name == "assistant" || name == "system") return name;
    if (name == "human") return "user";
    if (name == "gpt") return "assistant";
  }
  const auto role = find_role(name, more);
  return !role || *role == Role::kCall ? std::string_view() : role_name(*role);
}

enum class Columns { kOne, kNone, kSeveral };

/// How many columns are called so; `array` is set to the only one.
Columns find_column(const arrow::RecordBatch& batch, const std::string& name,
                    const arrow::Array** array) {
  if (name.empty()) return Columns::kNone;
  const auto indices = batch.schema()->GetAllFieldIndices(name);
  if (indices.empty()) return Columns::kNone;
  if (indices.size() > 1) return Columns::kSeveral;
  *array = batch.column(indices[0]).get();
  return Columns::kOne;
}

/// Sets `column` if the batch has it; false if it is there but not as a string.
bool find_strings(const arrow::RecordBatch& batch, const std::string& name,
                  std::optional<StringColumn>& column) {
  const arrow::Array* array = nullptr;
  switch (find_column(batch, name, &array)) {
    case Columns::kNone:
      return true;
    case Columns::kSeveral:
      return false;
    case Columns::kOne:
      column = StringColumn::of(*array);
      return column.has_value();
  }
  return false;
}

}  // namespace

std::optional<StringColumn> StringColumn::of(const arrow::Array& array) {
  StringColumn column;
  if (array.type_id() == arrow::Type::NA) {
    column.null_ = true;
    return column;
  }
  if (array.null_count() > 0) column.nulls_ = &array;
  const auto bytes = [](const uint8_t* data) {
    return data ? reinterpret_cast<const char*>(data) : "";
  };
  if (array.type_id() == arrow::Type::STRING) {
    const auto& strings = static_cast<const arrow::StringArray&>(array);
    column.small_ = strings.raw_value_offsets();
    column.data_ = bytes(strings.raw_data());
    return column;
  }
  if (array.type_id() == arrow::Type::LARGE_STRING) {
    const auto& strings = static_cast<const arrow::LargeStringArray&>(array);
    column.large_ = strings.raw_value_offsets();
    column.data_ = bytes(strings.raw_data());
    return column;
  }
  return std::nullopt;
}

std::optional<TurnColumn> TurnColumn::of(const RowRules& rules, const arrow::Array& array) {
  TurnColumn column;
  column.list_ = &array;
  column.role_names_ = &rules.roles;
  if (array.type_id() == arrow::Type::LIST) {
    const auto& list = static_cast<const arrow::ListArray&>(array);
    column.small_ = list.raw_value_offsets();
    column.turns_ = list.values().get();
  } else if (array.type_id() == arrow::Type::LARGE_LIST) {
    const auto& list = static_cast<const arrow::LargeListArray&>(array);
    column.large_ = list.raw_value_offsets();
    column.turns_ = list.values().get();
  } else {
    return std::nullopt;
  }
  if (column.turns_->type_id() != arrow::Type::STRUCT) return std::nullopt;
  const auto& turns = static_cast<const arrow::StructArray&>(*column.turns_);
  const auto& type = *turns.struct_type();

  const auto add = [&](const std::string& key, std::vector<StringColumn>& to) {
    const auto indices = type.GetAllFieldIndices(key);
    if (indices.size() > 1) return false;
    if (indices.empty()) return true;
    column.fields_.push_back(turns.field(indices[0]));
    const auto strings = StringColumn::of(*column.fields_.back());
    if (strings) to.push_back(*strings);
    return strings.has_value();
  };
  const auto add_keys = [&](const std::string& chosen, std::vector<const char*> keys,
                            std::vector<StringColumn>& to) {
    if (!chosen.empty()) return add(chosen, to);
    return std::all_of(keys.begin(), keys.end(), [&](const char* key) { return add(key, to); });
  };
  if (!add_keys(rules.role_key, {"role", "from"}, column.roles_) ||
      !add_keys(rules.content_key, {"content", "value"}, column.contents_) ||
      column.contents_.empty() ||
      !add_keys("", {"reasoning_content", "thinking", "reasoning"}, column.reasonings_) ||
      !add("tool_call_id", column.tool_call_ids_) || !add("name", column.names_)) {
    return std::nullopt;
  }
  const auto watch = [&](const char* key, std::vector<const arrow::Array*>& to) {
    for (const int index : type.GetAllFieldIndices(key)) {
      column.fields_.push_back(turns.field(index));
      to.push_back(column.fields_.back().get());
    }
  };
  for (const char* key : {"tool_calls", "function_call"}) watch(key, column.unusual_);
  for (const char* key : mark_keys()) {
    watch(key, marks_context(key) ? column.unusual_ : column.marks_);
  }
  return column;
}

bool TurnColumn::read(int64_t row, std::vector<TurnView>& turns) const {
  if (list_->IsNull(row)) return false;
  const int64_t begin = small_ ? small_[row] : large_[row];
  const int64_t end = small_ ? small_[row + 1] : large_[row + 1];
  for (int64_t i = begin; i < end; ++i) {
    if (!read_turn(i, turns.emplace_back())) return false;
  }
  return true;
}

bool TurnColumn::read_turn(int64_t i, TurnView& turn) const {
  if (turns_->IsNull(i)) return false;
  turn.role = plain_role(first_at(roles_, i), *role_names_);
  if (turn.role.empty()) return false;
  for (const auto* unusual : unusual_) {
    if (!is_nothing(*unusual, i)) return false;
  }
  if (!all_say_learned(marks_, i)) return false;
  turn.content = first_at(contents_, i);
  turn.reasoning_content = first_text_at(reasonings_, i);
  turn.tool_call_id = first_text_at(tool_call_ids_, i);
  turn.name = first_text_at(names_, i);
  return !has_double_brace(turn.content) && !has_double_brace(turn.reasoning_content);
}

std::optional<FastRows> FastRows::of(const RowRules& rules, const arrow::RecordBatch& batch) {
  FastRows rows;
  rows.format_ = rules.format;
  const auto add_side = [&](const std::string& name, const char* role, bool may_be_text) {
    const arrow::Array* array = nullptr;
    if (find_column(batch, name, &array) != Columns::kOne) return false;
    Side side{role, {}, {}};
    if (may_be_text) side.text = StringColumn::of(*array);
    if (!side.text) side.turns = TurnColumn::of(rules, *array);
    rows.sides_.push_back(side);
    return side.text || side.turns;
  };
  switch (rules.format) {
    case RowFormat::kText:
      if (!find_strings(batch, rules.text, rows.text_) || !rows.text_) return std::nullopt;
      break;
    case RowFormat::kShareGpt:
    case RowFormat::kMessages:
      if (!add_side(rules.conversation, "", false)) return std::nullopt;
      break;
    case RowFormat::kAlpaca:
    case RowFormat::kPromptCompletion:
      if (!add_side(rules.prompt, "user", true) || !add_side(rules.completion, "assistant", true) ||
          !find_strings(batch, rules.input, rows.input_)) {
        return std::nullopt;
      }
      break;
  }
  if (!rows.find_others(rules, batch)) return std::nullopt;
  return rows;
}

bool FastRows::find_others(const RowRules& rules, const arrow::RecordBatch& batch) {
  const auto add = [&](const std::string& name, std::vector<const arrow::Array*>& to) {
    const arrow::Array* array = nullptr;
    const auto found = find_column(batch, name, &array);
    if (found == Columns::kOne) to.push_back(array);
    return found != Columns::kSeveral;
  };
  const auto add_all = [&](const std::vector<std::string>& columns,
                           std::vector<const arrow::Array*>& to) {
    return std::all_of(columns.begin(), columns.end(),
                       [&](const auto& name) { return add(name, to); });
  };
  if (!add_all(rules.media, others_)) return false;
  if (rules.format == RowFormat::kText) return true;
  std::vector<const arrow::Array*> watched;
  if (!find_strings(batch, rules.system, system_) ||
      !add_all({rules.tools, rules.history, rules.reasoning}, others_) ||
      !add_all(rules.marks, marks_) || !add_all(rules.watched, watched)) {
    return false;
  }
  for (const auto* array : watched) watched_.push_back({array, StringColumn::of(*array)});
  return true;
}

bool FastRows::read(int64_t row) {
  for (const auto& side : sides_) {
    if (side.turns) {
      if (!side.turns->read(row, turns_)) return false;
      continue;
    }
    const auto text = side.text->at(row);
    if (is_blank(text) || has_double_brace(text)) return false;
    turns_.push_back({.role = side.role, .content = text});
  }
  return !input_ || add_input(row);
}

bool FastRows::add_input(int64_t row) {
  const auto input = input_->at(row);
  if (is_blank(input)) return true;
  if (!sides_.front().text || has_double_brace(input)) return false;
  joined_.assign(turns_.front().content).append("\n").append(input);
  turns_.front().content = joined_;
  return !has_double_brace(joined_);
}

bool FastRows::add_system(int64_t row) {
  if (!system_) return true;
  const auto system = system_->at(row);
  if (is_blank(system)) return true;
  if (!turns_.empty() && turns_.front().role == "system") return false;
  turns_.insert(turns_.begin(), {.role = "system", .content = system});
  return !has_double_brace(system);
}

bool FastRows::says_nothing_new(const Watched& column, int64_t row) const {
  if (is_nothing(*column.array, row)) return true;
  if (!column.text) return false;
  const auto text = column.text->at(row);
  return is_blank(text) || std::any_of(turns_.begin(), turns_.end(), [&](const auto& turn) {
           return turn.content.find(text) != std::string_view::npos;
         });
}

arrow::Result<bool> FastRows::append(int64_t row, StandardBuilder& builder,
                                     OptionalColumns& needed) {
  for (const auto* other : others_) {
    if (!is_nothing(*other, row)) return false;
  }
  if (format_ == RowFormat::kText) {
    const auto text = text_->at(row);
    if (text.empty() || has_double_brace(text)) return false;
    ARROW_RETURN_NOT_OK(builder.append_text(text));
    return true;
  }
  turns_.clear();
  if (!all_say_learned(marks_, row) || !read(row) || !add_system(row)) return false;
  const bool nothing_new = std::all_of(watched_.begin(), watched_.end(), [&](const auto& column) {
    return says_nothing_new(column, row);
  });
  if (!nothing_new) return false;
  const bool answered = std::any_of(turns_.begin(), turns_.end(),
                                    [](const auto& turn) { return turn.role == "assistant"; });
  if (!answered) return false;
  const bool silent = std::any_of(turns_.begin(), turns_.end(), [](const auto& turn) {
    return turn.role == "assistant" && is_blank(turn.content);
  });
  if (silent) return false;
  for (auto& turn : turns_) {
    if (turn.content.data() == nullptr) turn.content = "";
    needed.reasoning_content |= turn.reasoning_content.data() != nullptr;
    needed.tool_call_id |= turn.tool_call_id.data() != nullptr;
    needed.name |= turn.name.data() != nullptr;
    ARROW_RETURN_NOT_OK(builder.append_turn(turn));
  }
  ARROW_RETURN_NOT_OK(builder.end_row({}));
  return true;
}

}  // namespace lorry::data

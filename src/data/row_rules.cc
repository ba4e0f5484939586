// Which format a data set's rows have, told by its columns.
#include <arrow/type.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "data/conversations.h"

namespace lorry::data {
namespace {

/// The struct of the turns of a column: of a list of turns, or of turns as columns (a struct of
/// lists, as `datasets` stores a Sequence of dicts). Null where turns are no structs.
const arrow::DataType* turn_struct(const arrow::DataType& type) {
  if (type.id() == arrow::Type::STRUCT) return &type;
  if (type.num_fields() != 1 || type.field(0)->type()->id() != arrow::Type::STRUCT) return nullptr;
  return type.field(0)->type().get();
}

constexpr std::array kConversationColumns = {"conversations", "messages", "conversation"};
constexpr std::array kPromptColumns = {"prompt", "question", "instruction",
                                       "query",  "problem",  "input"};
constexpr std::array kCompletionColumns = {"completion", "response", "answer", "output",
                                           "solution"};

class Finder {
 public:
  Finder(const arrow::Schema& schema, const std::vector<Json>& sample, const NamedValues& columns)
      : schema_(schema), sample_(sample), columns_(columns) {}

  Result<RowRules> find(std::string format) {
    LORRY_TRY(check_columns());
    const bool is_told = !format.empty() && format != "auto";
    if (!is_told) {
      LORRY_ASSIGN(format, recognise());
    }
    LORRY_TRY(fill(format));
    rules_.system = optional("system");
    if (rules_.system.empty()) rules_.system = optional("system_prompt");
    rules_.tools = optional("tools");
    if (rules_.tools.empty()) rules_.tools = optional("functions");
    if (!is_told && columns_.empty()) find_other_formats();
    find_marks();
    return rules_;
  }

 private:
  bool has(const std::string& column) const { return schema_.GetFieldIndex(column) >= 0; }

  const std::string* chosen(std::string_view part) const {
    for (const auto& [name, column] : columns_) {
      if (name == part) return &column;
    }
    return nullptr;
  }

  /// The column that --columns names for a part, or the one called so.
  std::string optional(const std::string& part) const {
    if (const auto* column = chosen(part)) return *column;
    return has(part) ? part : "";
  }

  Result<> check_columns() const {
    static constexpr std::array kParts = {"conversations", "messages",    "conversation", "role",
                                          "content",       "instruction", "input",        "output",
                                          "history",       "prompt",      "completion",   "text",
                                          "system",        "tools",       "functions"};
    for (const auto& [part, column] : columns_) {
      if (std::find(kParts.begin(), kParts.end(), part) == kParts.end()) {
        return invalid_input(fmt::format("--columns: unknown part \"{}\"; the parts are {}", part,
                                         fmt::join(kParts, ", ")));
      }
      if (part == "role" || part == "content" || has(column)) continue;
      return invalid_input(fmt::format("--columns {}={}: there is no column {}; there are {}", part,
                                       column, column, column_names()));
    }
    return {};
  }

  std::string column_names() const {
    return fmt::format("{}", fmt::join(schema_.field_names(), ", "));
  }

  /// `label` where it is true or false (KTO and its like; numbers are classes), `weight` where it
  /// is 0 or 1.
  void find_marks() {
    if (rules_.format == RowFormat::kText) return;
    for (const char* column : {"label", "weight"}) {
      const bool numbers = column == std::string_view("weight");
      bool all = false;
      for (const Json& row : sample_) {
        const auto value = row.find(column);
        if (value == row.end() || value->is_null()) continue;
        const bool number = value->is_number() || *value == "0" || *value == "1";
        all = mark_value(*value).has_value() && (numbers || !number);
        if (!all) break;
      }
      if (all) rules_.marks.emplace_back(column);
    }
  }

  std::string conversation_column() const {
    for (const char* part : kConversationColumns) {
      if (const auto* column = chosen(part)) return *column;
    }
    for (const char* name : kConversationColumns) {
      if (has(name)) return name;
    }
    return "";
  }

  template <size_t N>
  std::string first_of(const std::array<const char*, N>& names, const std::string& other) const {
    for (const char* name : names) {
      if (has(name) && name != other) return name;
    }
    return "";
  }

  Result<std::string> recognise() const {
    for (const char* part : kConversationColumns) {
      if (chosen(part)) return std::string("messages");
    }
    if (chosen("prompt") || chosen("completion")) return std::string("prompt-completion");
    if (chosen("instruction") || chosen("output")) return std::string("alpaca");
    if (chosen("text")) return std::string("text");
    if (!conversation_column().empty()) return std::string("messages");
    if (has("instruction") && has("output")) return std::string("alpaca");
    const std::string prompt = first_of(kPromptColumns, "");
    if (!prompt.empty() && !first_of(kCompletionColumns, prompt).empty()) {
      return std::string("prompt-completion");
    }
    if (has("text")) return std::string("text");
    return invalid_input(fmt::format(
        "the columns ({}) are of no format that is recognised; say which is which, as in "
        "--columns prompt=question,completion=answer, or --columns text=body",
        column_names()));
  }

  Error missing(std::string_view format, std::string_view part) const {
    return invalid_input(
        fmt::format("format {} needs a column \"{}\"; there are {}; name it with --columns {}=NAME",
                    format, part, column_names(), part));
  }

  Result<> fill(const std::string& format) {
    if (format == "sharegpt" || format == "messages" || format == "openai") {
      return fill_conversation(format);
    }
    if (format == "alpaca") {
      rules_.format = RowFormat::kAlpaca;
      rules_.instruction = optional("instruction");
      rules_.input = optional("input");
      rules_.output = optional("output");
      rules_.history = optional("history");
      if (rules_.instruction.empty()) return missing(format, "instruction");
      if (rules_.output.empty()) return missing(format, "output");
      return {};
    }
    if (format == "prompt-completion") {
      rules_.format = RowFormat::kPromptCompletion;
      rules_.prompt = optional("prompt");
      rules_.completion = optional("completion");
      if (rules_.prompt.empty()) rules_.prompt = first_of(kPromptColumns, rules_.completion);
      if (rules_.completion.empty()) {
        rules_.completion = first_of(kCompletionColumns, rules_.prompt);
      }
      if (rules_.prompt.empty()) return missing(format, "prompt");
      if (rules_.completion.empty()) return missing(format, "completion");
      rules_.nulls_are_absent = has_structs(rules_.prompt) || has_structs(rules_.completion);
      return {};
    }
    if (format == "text") {
      rules_.format = RowFormat::kText;
      rules_.text = optional("text");
      if (rules_.text.empty()) return missing(format, "text");
      return {};
    }
    return usage_error(
        fmt::format("--format {}: unknown; the formats are sharegpt, messages (openai), "
                    "alpaca, prompt-completion, text",
                    format));
  }

  Result<> fill_conversation(const std::string& format) {
    rules_.conversation = conversation_column();
    if (rules_.conversation.empty()) {
      return missing(format, format == "sharegpt" ? "conversations" : "messages");
    }
    rules_.nulls_are_absent = has_structs(rules_.conversation);
    if (const auto* key = chosen("role")) rules_.role_key = *key;
    if (const auto* key = chosen("content")) rules_.content_key = *key;
    const bool sharegpt = format == "sharegpt" || turns_have("from");
    rules_.format = sharegpt ? RowFormat::kShareGpt : RowFormat::kMessages;
    return {};
  }

  void find_other_formats() {
    const auto add = [this](std::vector<std::string> columns) {
      const bool whole = std::all_of(columns.begin(), columns.end(), [this](const auto& column) {
        return has(column) && !rules_.uses(column);
      });
      if (whole) rules_.other_formats.push_back(std::move(columns));
    };
    for (const char* name : kConversationColumns) add({name});
    for (const char* prompt : kPromptColumns) {
      for (const char* completion : kCompletionColumns) add({prompt, completion});
    }
    add({"text"});
  }

  bool has_structs(const std::string& column) const {
    return turn_struct(*schema_.GetFieldByName(column)->type()) != nullptr;
  }

  bool turns_have(const char* key) const {
    for (const Json& row : sample_) {
      const auto turns = row.find(rules_.conversation);
      if (turns == row.end() || turns->empty()) continue;
      if (turns->is_object()) return turns->contains(key);
      if (!turns->is_array()) continue;
      return turns->front().is_object() && turns->front().contains(key);
    }
    return false;
  }

  const arrow::Schema& schema_;
  const std::vector<Json>& sample_;
  const NamedValues& columns_;
  RowRules rules_;
};

/// The keys of a turn that standardize_row looks at.
bool is_turn_key(const RowRules& rules, const std::string& key) {
  static constexpr std::array kExtras = {"tool_calls", "function_call",     "tool_call_id",
                                         "name",       "reasoning_content", "thinking",
                                         "reasoning"};
  if (rules.role_key.empty() ? key == "role" || key == "from" : key == rules.role_key) return true;
  if (rules.content_key.empty() ? key == "content" || key == "value" : key == rules.content_key) {
    return true;
  }
  return is_mark(key) || std::find(kExtras.begin(), kExtras.end(), key) != kExtras.end();
}

/// The keys that turns of a column have: by its type, or by the sample if they are JSON.
std::vector<std::string> turn_keys(const arrow::Field& field, const std::vector<Json>& sample) {
  std::vector<std::string> keys;
  if (const auto* turn = turn_struct(*field.type())) {
    for (const auto& key : turn->fields()) keys.push_back(key->name());
    return keys;
  }
  const auto add_keys = [&](const Json& turn) {
    if (!turn.is_object()) return;
    for (const auto& [key, value] : turn.items()) {
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
    }
  };
  for (const Json& row : sample) {
    const auto turns = row.find(field.name());
    if (turns == row.end()) continue;
    add_keys(*turns);
    if (!turns->is_array()) continue;
    for (const Json& turn : *turns) add_keys(turn);
  }
  return keys;
}

}  // namespace

std::vector<std::string> unused_columns(const arrow::Schema& schema,
                                        const std::vector<Json>& sample, const RowRules& rules) {
  const bool is_text = rules.format == RowFormat::kText;
  std::vector<std::string> unused;
  for (const auto& field : schema.fields()) {
    if (std::find(rules.marks.begin(), rules.marks.end(), field->name()) != rules.marks.end())
      continue;
    const bool left_out_of_text = is_text && field->name() != rules.text &&
                                  (field->name() == rules.system || field->name() == rules.tools);
    const bool used = rules.uses(field->name()) && !left_out_of_text;
    if (!used) unused.push_back(field->name());
    if (!used || field->name() == rules.tools || field->name() == rules.history) continue;
    for (const auto& key : turn_keys(*field, sample)) {
      if (!is_turn_key(rules, key)) unused.push_back(fmt::format("{}[].{}", field->name(), key));
    }
  }
  return unused;
}

std::string_view row_format_name(RowFormat format) {
  switch (format) {
    case RowFormat::kShareGpt:
      return "sharegpt";
    case RowFormat::kMessages:
      return "messages";
    case RowFormat::kAlpaca:
      return "alpaca";
    case RowFormat::kPromptCompletion:
      return "prompt-completion";
    case RowFormat::kText:
      return "text";
  }
  return "";
}

Result<RowRules> find_rules(const arrow::Schema& schema, const std::vector<Json>& sample,
                            const std::string& format, const NamedValues& columns,
                            NamedValues placeholders) {
  LORRY_ASSIGN(auto rules, Finder(schema, sample, columns).find(format));
  rules.placeholders = std::move(placeholders);
  return rules;
}

}  // namespace lorry::data

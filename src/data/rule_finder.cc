// Which format a data set's rows have, told by its columns.
#include <arrow/type.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "data/column_names.h"
#include "data/conversations.h"
#include "data/left_out.h"
#include "data/marks.h"
#include "data/named_columns.h"
#include "data/row_values.h"
#include "data/turn_shapes.h"
#include "data/whole_rows.h"

namespace lorry::data {
namespace {

class Finder {
 public:
  Finder(const arrow::Schema& schema, const std::vector<Json>& sample, const RowOptions& options)
      : options_(options), columns_(schema, sample, options), sample_(sample) {}

  Result<RowRules> find() {
    rules_.roles = options_.roles;
    rules_.placeholders = options_.placeholders;
    LORRY_TRY(columns_.check_options());
    LORRY_TRY(
        check_not_wrapped(sample_, [this](const auto& column) { return holds_turns(column); }));
    const bool is_told = !options_.format.empty() && options_.format != "auto";
    LORRY_TRY(choose_preferred(is_told));
    std::string format = options_.format;
    if (!is_told) {
      LORRY_ASSIGN(format, recognise());
    }
    LORRY_TRY(fill(format));
    rules_.system = chosen_or_first("system", names::kSystem);
    rules_.tools = chosen_or_first("tools", names::kTools);
    if (const auto* column = chosen("functions")) rules_.tools = *column;
    if (!is_told && !columns_.any_chosen()) find_other_formats();
    find_marks();
    find_watched();
    LORRY_TRY(check_sample());
    return rules_;
  }

 private:
  std::vector<std::string> all_of(Names list) const { return columns_.all(list, rules_); }

  std::string first_of(Names list) const {
    const auto found = all_of(list);
    return found.empty() ? "" : found.front();
  }

  /// The column that --columns names for a part, or the first of those that are called so.
  std::string chosen_or_first(std::string_view part, Names list) const {
    const auto* column = columns_.chosen(part);
    return column ? *column : first_of(list);
  }

  bool has(const std::string& name) const { return columns_.has(name); }

  const std::string* chosen(std::string_view part) const { return columns_.chosen(part); }

  // Preference pairs.

  /// The first column that is called so, whatever its part.
  std::string called(Names list) const {
    for (const char* name : list) {
      if (auto column = columns_.of(name); !column.empty()) return column;
    }
    return "";
  }

  Result<> choose_preferred(bool is_told) {
    const std::string preferred = called(names::kChosen), rejected = called(names::kRejected);
    const bool has_pairs = !preferred.empty() && !rejected.empty();
    if (!options_.prefer.empty()) {
      if (!has_pairs) {
        return invalid_input(
            fmt::format("--prefer {}: there are no columns chosen and rejected; there are {}",
                        options_.prefer, columns_.names()));
      }
      return take_preferred(preferred);
    }
    const bool decided = is_told || chosen("completion") || chosen("output") ||
                         chosen("conversations") || chosen("messages") || chosen("conversation");
    if (!has_pairs || decided || ends_in_answer(conversation_column())) return {};
    return invalid_input(
        fmt::format("preference pairs (columns {} and {}): --prefer chosen trains on the chosen "
                    "answers; training on the pairs (DPO) is not there yet",
                    preferred, rejected));
  }

  /// The chosen answer follows the prompt, unless it is a conversation with the prompt in it.
  Result<> take_preferred(const std::string& column) {
    if (starts_conversation(column)) {
      columns_.choose("messages", column);
      return {};
    }
    columns_.choose("completion", column);
    if (chosen("prompt")) return {};
    std::string prompt = conversation_column();
    if (prompt.empty()) prompt = first_of(names::kPrompt);
    if (prompt.empty()) {
      return invalid_input(fmt::format(
          "column {} has answers, but there is no column with their prompts; texts with both "
          "sides in them are not taken apart, lists of turns are. There are {}",
          column, columns_.names()));
    }
    columns_.choose("prompt", prompt);
    return {};
  }

  RowRules rules_of_turns(const std::string& column) const {
    RowRules rules;
    rules.conversation = column;
    rules.roles = options_.roles;
    return rules;
  }

  bool starts_conversation(const std::string& column) const {
    const RowRules rules = rules_of_turns(column);
    for (const Json& row : sample_) {
      if (!field(row, column).is_array()) continue;
      const auto done = standardize_row(rules, row);
      if (done.ok() && !done->turns.empty()) return done->turns.front().role != "assistant";
    }
    return false;
  }

  /// Whether one of the sample's conversations ends in an answer, or is not understood.
  bool ends_in_answer(const std::string& column) const {
    if (column.empty()) return false;
    const RowRules rules = rules_of_turns(column);
    return std::any_of(sample_.begin(), sample_.end(), [&](const Json& row) {
      if (holds_nothing(field(row, column))) return false;
      const auto done = standardize_row(rules, row);
      return !done.ok() || (!done->turns.empty() && done->turns.back().role == "assistant");
    });
  }

  // The format.

  std::string conversation_column() const {
    for (const char* part : names::kConversation) {
      if (const auto* column = chosen(part)) return *column;
    }
    const std::string column = first_of(names::kConversation);
    if (!column.empty()) return column;
    for (const auto& dialogue : all_of(names::kDialogue)) {
      if (holds_turns(dialogue)) return dialogue;
    }
    return "";
  }

  bool holds_turns(const std::string& column) const {
    const RowRules rules = rules_of_turns(column);
    for (const Json& row : sample_) {
      const Json& value = field(row, column);
      if (!holds_nothing(value)) return value.is_array() && standardize_row(rules, row).ok();
    }
    return false;
  }

  std::vector<std::string> answer_columns() const {
    auto answers = all_of(names::kCompletion);
    if (answers.empty() && !all_of(names::kTools).empty()) answers = all_of(names::kCalls);
    if (!answers.empty()) return answers;
    for (auto& column : all_of(names::kAnswerLists)) {
      if (holds(column, [](const Json& value) { return answer_texts(value).has_value(); }))
        answers.push_back(std::move(column));
    }
    return answers;
  }

  /// Whether a row of the sample has such a value in the column.
  template <typename Is>
  bool holds(const std::string& column, Is is) const {
    return std::any_of(sample_.begin(), sample_.end(),
                       [&](const Json& row) { return is(field(row, column)); });
  }

  Result<std::string> recognise() const {
    for (const char* part : names::kConversation) {
      if (chosen(part)) return std::string("messages");
    }
    if (chosen("prompt") || chosen("completion")) return std::string("prompt-completion");
    if (chosen("instruction") || chosen("output")) return std::string("alpaca");
    if (chosen("text")) return std::string("text");
    LORRY_TRY(check_rows_are_whole(columns_, sample_));
    const bool answers = !answer_columns().empty();
    const std::string conversation = conversation_column();
    if (columns_.has_values(conversation) || (!conversation.empty() && !answers)) {
      // Prompts that are lists of turns, their answers in a column of their own.
      const bool is_prompt = answers && !ends_in_answer(conversation);
      return std::string(is_prompt ? "prompt-completion" : "messages");
    }
    if (!segments_column().empty()) return std::string("text");
    if (has("instruction") && has("output")) return std::string("alpaca");
    if (answers && has_prompt_for_answers()) return std::string("prompt-completion");
    if (!has("text")) {
      return invalid_input(fmt::format(
          "the columns ({}) are of no format that is recognised; say which is which, as in "
          "--columns prompt=question,completion=answer, or --columns text=body",
          columns_.names()));
    }
    if (answers) LORRY_TRY(check_text_beside(answer_columns().front()));
    return std::string("text");
  }

  /// The column with texts in parts; empty if there is none.
  std::string segments_column() const {
    const std::string column = columns_.of(names::kSegments);
    const auto is_part = [](const Json& value) {
      return value.is_array() && !value.empty() && !field(value[0], "text").is_null() &&
             !field(value[0], "label").is_null();
    };
    return holds(column, is_part) ? column : "";
  }

  /// A prompt beside the answer, which may be called so, too (input and output).
  bool has_prompt_for_answers() const {
    const auto answers = answer_columns();
    const auto prompts = all_of(names::kPrompt);
    return std::any_of(prompts.begin(), prompts.end(), [&](const auto& prompt) {
      return std::any_of(answers.begin(), answers.end(),
                         [&](const auto& answer) { return answer != prompt; });
    });
  }

  /// `text` beside `output` may be the prompt, or the whole with the output in it.
  Result<> check_text_beside(const std::string& answer) const {
    const std::string text = columns_.of("text");
    const auto found = columns_.overlap(text, answer);
    if (found.within == found.both) return {};
    return invalid_input(fmt::format(
        "column {} may be the prompt of column {}, or all that there is to learn; --columns "
        "prompt={},completion={} takes it as the prompt, --columns text={} alone",
        text, answer, text, answer, text));
  }

  Error missing(std::string_view format, std::string_view part) const {
    return invalid_input(
        fmt::format("format {} needs a column \"{}\"; there are {}; name it with --columns {}=NAME",
                    format, part, columns_.names(), part));
  }

  Result<> fill(const std::string& format) {
    if (format == "sharegpt" || format == "messages" || format == "openai") {
      return fill_conversation(format);
    }
    if (format == "alpaca") return fill_alpaca();
    if (format == "prompt-completion") return fill_pair();
    if (format == "text") {
      rules_.format = RowFormat::kText;
      rules_.text = chosen("text") ? *chosen("text") : segments_column();
      if (rules_.text.empty()) rules_.text = first_of(names::kText);
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
    LORRY_TRY(check_one_conversation());
    rules_.nulls_are_absent = has_structs(rules_.conversation);
    if (const auto* key = chosen("role")) rules_.role_key = *key;
    if (const auto* key = chosen("content")) rules_.content_key = *key;
    const bool sharegpt = format == "sharegpt" || turns_have("from");
    rules_.format = sharegpt ? RowFormat::kShareGpt : RowFormat::kMessages;
    return {};
  }

  /// Several columns of turns are one conversation, or it must be said which counts.
  Result<> check_one_conversation() const {
    if (columns_.is_chosen(rules_.conversation)) return {};
    for (const auto& other : all_of(names::kConversation)) {
      for (const Json& row : sample_) {
        const auto mine = standardize_row(rules_of_turns(rules_.conversation), row);
        if (!mine.ok() || mine->turns.empty()) continue;
        if (!adds_text(field(row, other), mine->turns)) continue;
        return invalid_input(fmt::format(
            "columns {} and {} are different conversations; --columns messages={} or --columns "
            "messages={} says which to learn",
            rules_.conversation, other, rules_.conversation, other));
      }
    }
    return {};
  }

  Result<> fill_alpaca() {
    rules_.format = RowFormat::kAlpaca;
    rules_.prompt = chosen_or_first("instruction", std::array<const char*, 1>{"instruction"});
    if (rules_.prompt.empty()) return missing("alpaca", "instruction");
    rules_.completion = chosen("output") ? *chosen("output") : "";
    if (rules_.completion.empty() && options_.format == "alpaca") {
      rules_.completion = columns_.of("output");
    }
    return fill_answer("alpaca", "output");
  }

  Result<> fill_pair() {
    rules_.format = RowFormat::kPromptCompletion;
    if (const auto* column = chosen("completion")) rules_.completion = *column;
    if (const auto* column = chosen("prompt")) rules_.prompt = *column;
    if (rules_.prompt.empty()) rules_.prompt = find_prompt();
    if (rules_.prompt.empty()) return missing("prompt-completion", "prompt");
    return fill_answer("prompt-completion", "completion");
  }

  /// What goes with a prompt: its input and history, and the answer.
  Result<> fill_answer(std::string_view format, std::string_view part) {
    if (rules_.completion.empty()) {
      LORRY_ASSIGN(rules_.completion, find_completion(part));
    }
    if (rules_.completion.empty()) return missing(format, part);
    rules_.input = find_input();
    rules_.history = chosen_or_first("history", names::kHistory);
    if (const auto* column = chosen("reasoning")) rules_.reasoning = *column;
    rules_.nulls_are_absent = has_structs(rules_.prompt) || has_structs(rules_.completion);
    return {};
  }

  /// The first of the names that is no rendering of the row (another prompt with the answer).
  std::string find_prompt() const {
    const std::string conversation = conversation_column();
    if (columns_.has_values(conversation) && !ends_in_answer(conversation)) return conversation;
    auto prompts = all_of(names::kPrompt);
    const auto answers = answer_columns();
    const auto is_rendering = [&](const std::string& column) {
      const auto holds = [&](const std::string& other) {
        const auto found = columns_.overlap(column, other);
        return other != column && found.both > 0 && found.within == found.both;
      };
      return std::any_of(prompts.begin(), prompts.end(), holds) &&
             std::any_of(answers.begin(), answers.end(), holds);
    };
    for (const auto& prompt : prompts) {
      if (!is_rendering(prompt)) return prompt;
    }
    return prompts.empty() ? "" : prompts.front();
  }

  /// What is to follow the prompt, if the prompt does not have it already.
  std::string find_input() const {
    if (const auto* column = chosen("input")) return *column;
    for (auto& column : all_of(names::kInput)) {
      if (!columns_.is_always_within(column, rules_.prompt)) return column;
    }
    return "";
  }

  /// Of several answers the one that has the others in it, as a solution ends in its result.
  Result<std::string> find_completion(std::string_view part) const {
    const auto answers = answer_columns();
    if (answers.empty()) return std::string();
    std::string best = answers.front();
    for (const auto& other : answers) {
      const auto mine = columns_.overlap(best, other), its = columns_.overlap(other, best);
      const bool has_other = 2 * mine.within >= mine.both;
      const bool other_has = 2 * its.within >= its.both;
      if (!has_other && !other_has) {
        return invalid_input(
            fmt::format("columns {} and {} could both be the answer; --columns {}={} or --columns "
                        "{}={} says which to learn",
                        best, other, part, best, part, other));
      }
      if (!has_other || its.within > mine.within) best = other;
    }
    return best;
  }

  /// `label` where it is true or false (KTO and its like; numbers are classes), `weight` where it
  /// is 0 or 1.
  void find_marks() {
    if (rules_.format == RowFormat::kText) return;
    for (const char* column : {"label", "weight"}) {
      if (!has(column)) continue;
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

  void find_other_formats() {
    const auto add = [this](std::vector<std::string> columns) {
      const bool whole = std::all_of(columns.begin(), columns.end(), [this](const auto& column) {
        return has(column) && !rules_.uses(column);
      });
      if (whole) rules_.other_formats.push_back(std::move(columns));
    };
    for (const char* name : names::kConversation) add({name});
    for (const char* prompt : names::kPrompt) {
      for (const char* completion : names::kCompletion) add({prompt, completion});
    }
    add({"text"});
  }

  // What would be left out.

  void find_watched() {
    rules_.media = all_of(names::kMedia);
    if (rules_.format == RowFormat::kText) return;
    const auto add = [this](const auto& list) {
      for (auto& column : all_of(list)) {
        const bool is_account = lower(column) == names::kUser;
        const bool known =
            std::find(rules_.watched.begin(), rules_.watched.end(), column) != rules_.watched.end();
        if (!is_account && !known) rules_.watched.push_back(std::move(column));
      }
    };
    add(names::kPrompt);
    add(names::kInput);
    add(names::kHistory);
    add(names::kMoreInput);
    std::erase_if(rules_.watched, [this](const std::string& column) {
      return columns_.is_filled_template(column, {rules_.completion, rules_.input, rules_.prompt});
    });
  }

  /// Looks at the sample before any row is written: what its rows show is a fault of the data set
  /// and not of a row.
  Result<> check_sample() const {
    if (rules_.watched.empty() && rules_.media.empty()) return check_words();
    RowRules unwatched = rules_;
    unwatched.watched.clear();
    unwatched.media.clear();
    for (const Json& row : sample_) {
      const auto done = standardize_row(unwatched, row);
      if (done.ok() && done->dropped.empty()) LORRY_TRY(check_left_out(rules_, row, *done));
    }
    return check_words();
  }

  Result<> check_words() const {
    if (rules_.format == RowFormat::kText) return {};
    std::vector<std::string> columns;
    const auto answers = answer_columns();
    for (const auto& name : unused_columns(columns_.schema(), sample_, rules_)) {
      const bool is_answer = name == called(names::kChosen) || name == called(names::kRejected) ||
                             std::find(answers.begin(), answers.end(), name) != answers.end();
      if (columns_.schema().GetFieldIndex(name) >= 0 && !is_answer && !columns_.is_ignored(name))
        columns.push_back(name);
    }
    return check_shared_words(rules_, sample_, columns);
  }

  bool has_structs(const std::string& column) const {
    return turn_struct(*columns_.schema().GetFieldByName(column)->type()) != nullptr;
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

  const RowOptions& options_;
  NamedColumns columns_;
  const std::vector<Json>& sample_;
  RowRules rules_;
};

}  // namespace

Result<RowRules> find_rules(const arrow::Schema& schema, const std::vector<Json>& sample,
                            const RowOptions& options) {
  return Finder(schema, sample, options).find();
}

}  // namespace lorry::data

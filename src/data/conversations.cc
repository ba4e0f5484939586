#include "data/conversations.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "data/column_names.h"
#include "data/left_out.h"
#include "data/marks.h"
#include "data/placeholders.h"
#include "data/roles.h"
#include "data/row_values.h"
#include "data/tool_calls.h"
#include "data/turn_shapes.h"

namespace lorry::data {
namespace {

bool is_answer(const Turn& turn) { return turn.role == "assistant"; }

bool says_nothing(const Turn& turn) {
  return is_blank(turn.content) && !turn.tool_calls &&
         is_blank(turn.reasoning_content.value_or(""));
}

class RowStandardizer {
 public:
  RowStandardizer(const RowRules& rules, const Json& row) : rules_(rules), row_(row) {}

  Result<StandardRow> run() {
    LORRY_TRY(check_format());
    LORRY_TRY(read_marks());
    if (out_.dropped.empty()) LORRY_TRY(read_row());
    if (!out_.dropped.empty()) return std::move(out_);
    const bool is_text = rules_.format == RowFormat::kText;
    if (!is_text) {
      LORRY_TRY(add_system());
      LORRY_TRY(add_tools());
    }
    LORRY_TRY(check_left_out(rules_, row_, out_));
    if (!is_text) judge();
    return std::move(out_);
  }

 private:
  bool has(const std::string& column) const {
    const Json& value = field(row_, column);
    return !value.is_null() && value != "";
  }

  /// A row that is of another format than the rest would be dropped as empty.
  Result<> check_format() const {
    if (rules_.other_formats.empty()) return {};
    const std::string* mine[] = {&rules_.conversation, &rules_.prompt, &rules_.input,
                                 &rules_.completion, &rules_.text};
    std::vector<std::string> empty;
    for (const auto* column : mine) {
      if (has(*column)) return {};
      if (!column->empty()) empty.push_back(*column);
    }
    for (const auto& columns : rules_.other_formats) {
      if (!std::all_of(columns.begin(), columns.end(),
                       [this](const auto& column) { return has(column); })) {
        continue;
      }
      return invalid_input(fmt::format(
          "it has nothing in {}, but in {}: the source holds rows of two formats; import the files "
          "of each as a data set of its own",
          fmt::join(empty, ", "), fmt::join(columns, ", ")));
    }
    return {};
  }

  Result<> read_marks() {
    for (const auto& column : rules_.marks) {
      const Json& mark = field(row_, column);
      if (mark.is_null()) continue;
      const auto value = mark_value(mark);
      if (!value) {
        return invalid_input(
            fmt::format("column {}: {} is not understood; rows with 0 or false are left out",
                        column, dump_json(mark)));
      }
      if (!*value) out_.dropped = column + (column == "label" ? " false" : " 0");
    }
    return {};
  }

  Result<> read_row() {
    switch (rules_.format) {
      case RowFormat::kShareGpt:
      case RowFormat::kMessages:
        return add_turns(field(row_, rules_.conversation), rules_.conversation);
      case RowFormat::kAlpaca:
      case RowFormat::kPromptCompletion:
        return read_pair();
      case RowFormat::kText:
        return read_text();
    }
    return {};
  }

  Result<> read_text() {
    const Json& text = field(row_, rules_.text);
    if (text.is_null() || text == "") {
      out_.dropped = "empty text";
      return {};
    }
    if (text.is_array()) return read_segments(text);
    if (!text.is_string()) return not_text(rules_.text);
    out_.text = fill(text.get<std::string>());
    return {};
  }

  /// A text in parts, each to be learned or not.
  Result<> read_segments(const Json& given) {
    Json segments = Json::array();
    bool learned = false;
    for (const Json& part : given) {
      const Json& text = field(part, "text");
      const auto label = mark_value(field(part, "label"));
      if (!text.is_string() || !label) {
        return invalid_input(
            fmt::format("column {}: a part is {}, not {{\"label\": true or false, \"text\": ...}}",
                        rules_.text, dump_json(part)));
      }
      std::string words = fill(text.get<std::string>());
      out_.text += words;
      learned |= *label && !words.empty();
      segments.push_back({{"label", *label}, {"text", std::move(words)}});
    }
    out_.segments = dump_json(segments);
    if (!learned) out_.dropped = out_.text.empty() ? "empty text" : "no part is to be learned";
    return {};
  }

  Result<> read_pair() {
    LORRY_TRY(add_history());
    const bool had_turns = is_turns(field(row_, rules_.prompt));
    LORRY_ASSIGN(const std::string input, text_of(rules_.input));
    if (had_turns) {
      if (!is_blank(input)) {
        return invalid_input(fmt::format("column {} has text beside the turns of column {}",
                                         rules_.input, rules_.prompt));
      }
      LORRY_TRY(add_side(rules_.prompt, "user"));
    } else {
      LORRY_ASSIGN(std::string user, text_of(rules_.prompt));
      if (!is_blank(input)) user += user.empty() ? input : "\n" + input;
      add_text(std::move(user), "user");
    }
    LORRY_TRY(add_side(rules_.completion, "assistant"));
    return add_reasoning();
  }

  /// Pairs of prompt and answer, or turns.
  Result<> add_history() {
    const Json& given = field(row_, rules_.history);
    if (holds_nothing(given)) return {};
    const Json history = parsed(given);
    const auto is_pair = [](const Json& pair) {
      return pair.is_array() && pair.size() == 2 && pair[0].is_string() && pair[1].is_string();
    };
    const bool pairs = history.is_array() && std::all_of(history.begin(), history.end(), is_pair);
    if (!pairs) return add_turns(given, rules_.history);
    for (const auto& pair : history) {
      add("user", pair[0].get<std::string>());
      add("assistant", pair[1].get<std::string>());
    }
    return {};
  }

  Result<> add_reasoning() {
    LORRY_ASSIGN(std::string reasoning, text_of(rules_.reasoning));
    if (is_blank(reasoning) || out_.turns.empty() || !is_answer(out_.turns.back())) return {};
    out_.turns.back().reasoning_content = fill(std::move(reasoning));
    return {};
  }

  static bool is_turns(const Json& value) { return value.is_array() || value.is_object(); }

  /// The answer as calls of the row's own tools, as in xLAM's `answers`; false if it is anything
  /// else.
  Result<bool> add_calls_of_tools(const Json& answer) {
    LORRY_ASSIGN(const Json tools, definitions_of_tools());
    if (tools.empty() || holds_nothing(answer) || !(is_turns(answer) || answer.is_string()))
      return false;
    const auto calls = tool_calls(answer);
    if (!calls.ok() || calls->empty()) return false;
    for (const Json& call : *calls) {
      const Json& name = call["function"]["name"];
      const auto defines = [&](const Json& tool) { return tool["function"]["name"] == name; };
      if (std::none_of(tools.begin(), tools.end(), defines)) return false;
    }
    add("assistant", "").tool_calls = dump_json(*calls);
    return true;
  }

  /// A column of a pair: a string is one turn, a list is turns.
  Result<> add_side(const std::string& column, const char* role) {
    const Json& value = field(row_, column);
    if (role == std::string_view("assistant")) {
      LORRY_ASSIGN(const bool calls, add_calls_of_tools(value));
      if (calls) return {};
    }
    if (role == std::string_view("assistant")) {
      if (const auto answers = answer_texts(value)) return add_first_answer(*answers);
    }
    const Json& asked = field(value, names::kRequestMessages);
    if (asked.is_array()) return add_turns(asked, column);
    if (value.is_object() && !is_columns(value)) return add_turns(Json::array({value}), column);
    if (value.is_array() && !value.empty() && value[0].is_string()) {
      return invalid_input(fmt::format("column {} is a list of texts, not one text", column));
    }
    if (is_turns(value)) return add_turns(value, column);
    LORRY_ASSIGN(std::string text, text_of(column));
    add_text(std::move(text), role);
    return {};
  }

  /// Several people's answers: the first, as SQuAD's own training takes them.
  Result<> add_first_answer(const std::vector<std::string>& answers) {
    const auto differs = [&](const std::string& other) { return other != answers.front(); };
    if (std::any_of(answers.begin(), answers.end(), differs))
      out_.notes.insert("several answers to one question, of which the first is taken");
    add_text(answers.empty() ? std::string() : answers.front(), "assistant");
    return {};
  }

  void add_text(std::string text, const char* role) {
    if (is_blank(text) && out_.dropped.empty()) {
      out_.dropped = role == std::string_view("user") ? "empty prompt" : "empty completion";
    }
    add(role, std::move(text));
  }

  /// A column's text; numbers and booleans as JSON writes them.
  Result<std::string> text_of(const std::string& column) const {
    const Json& value = field(row_, column);
    if (value.is_null()) return std::string();
    if (value.is_string()) return value.get<std::string>();
    if (value.is_number_float() && !std::isfinite(value.get<double>())) {
      // pandas and what it writes have NaN for missing values.
      if (std::isnan(value.get<double>())) return std::string();
      return invalid_input(fmt::format("column {} is an infinite number, not text", column));
    }
    if (value.is_number() || value.is_boolean()) return dump_json(value);
    return not_text(column);
  }

  static Error not_text(const std::string& column) {
    return invalid_input(fmt::format("column {} is not text", column));
  }

  Turn& add(const char* role, std::string content) {
    out_.turns.push_back(Turn{role, fill(std::move(content))});
    return out_.turns.back();
  }

  Result<> add_turns(const Json& given, const std::string& column) {
    LORRY_ASSIGN(Json turns, list_of_turns(given).with_context(fmt::format("column {}", column)));
    if (rules_.role_key.empty()) {
      LORRY_ASSIGN(turns, usual_turns(std::move(turns), rules_.roles)
                              .with_context(fmt::format("column {}", column)));
    }
    for (size_t i = 0; i < turns.size(); ++i) {
      LORRY_TRY(add_turn(turns[i]).with_context(fmt::format("column {}, turn {}", column, i)));
    }
    return {};
  }

  const Json& role_field(const Json& turn) const {
    if (!rules_.role_key.empty()) return field(turn, rules_.role_key);
    const Json& role = field(turn, "role");
    return role.is_null() ? field(turn, "from") : role;
  }

  const Json& content_field(const Json& turn) const {
    if (!rules_.content_key.empty()) return field(turn, rules_.content_key);
    const Json& content = field(turn, "content");
    return content.is_null() ? field(turn, "value") : content;
  }

  Result<> add_turn(const Json& turn) {
    if (!turn.is_object()) {
      return invalid_input(
          fmt::format("it is {}, not an object with a role and a content", described(turn)));
    }
    const Json& role = role_field(turn);
    if (!role.is_string()) {
      return invalid_input(
          fmt::format("no role (\"role\" or \"from\"); it is {}; --columns "
                      "role=KEY,content=KEY names other keys",
                      described(turn)));
    }
    const auto known = find_role(role.get_ref<const std::string&>(), rules_.roles);
    if (!known) {
      const std::string name = role.get<std::string>();
      return invalid_input(
          fmt::format("unknown role \"{}\"; --roles \"{}=user\" (or =assistant, =system, =tool) "
                      "says whose turn it is",
                      name, name));
    }
    LORRY_ASSIGN(const Json content,
                 rows_of_columns(content_field(turn)).with_context("the content"));
    LORRY_ASSIGN(const bool learned, learned_by_marks(turn));
    if (*known == Role::kCall) {
      LORRY_TRY(add_call(content));
      out_.turns.back().learned = learned;
      return {};
    }
    Turn& added = add(role_name(*known), "");
    added.learned = learned || !is_answer(added);
    if (content.is_string()) {
      added.content = fill(content.get<std::string>());
    } else if (content.is_array()) {
      LORRY_TRY(add_parts(added, content));
    } else if (!content.is_null()) {
      return invalid_input("the content is neither text nor a list of parts");
    }
    return add_extras(added, turn);
  }

  /// ShareGPT's function_call: a turn of the assistant's whose text is the call.
  Result<> add_call(const Json& content) {
    if (content.is_null()) return invalid_input("a function call without text");
    Turn& added = add("assistant", "");
    LORRY_ASSIGN(const Json calls, tool_calls(content));
    if (!calls.is_null()) {
      added.tool_calls = dump_json(calls);
      return {};
    }
    added.content = fill(content.is_string() ? content.get<std::string>() : dump_json(content));
    out_.notes.insert("function calls that are no JSON of a call, kept as text");
    return {};
  }

  Result<> add_parts(Turn& turn, const Json& parts) {
    std::string text, reasoning;
    Json calls = Json::array();
    for (const Json& part : parts) {
      if (part.is_null()) continue;
      if (part.is_string()) {
        text += part.get<std::string>();
        continue;
      }
      const Json& type = field(part, "type");
      const bool is_call = part.is_object() && part.contains("functionCall");  // Gemini's
      const std::string kind = is_call            ? "tool_call"
                               : type.is_string() ? type.get<std::string>()
                                                  : "text";
      const Json& value = part_value(part, kind);
      if (kind == "tool_call" || kind == "tool_calls" || kind == "function_call" ||
          kind == "tool_use") {
        Json calls_of_part = value.is_null() ? part : value;
        if (rules_.nulls_are_absent) remove_nulls(calls_of_part);
        LORRY_ASSIGN(const Json more, tool_calls(calls_of_part));
        if (more.is_null())
          return invalid_input("a tool call that is not {\"name\", \"arguments\"}");
        calls.insert(calls.end(), more.begin(), more.end());
      } else if (kind == "text" || kind == "input_text" || kind == "output_text") {
        if (!value.is_string()) return invalid_input("a text part without text");
        text += value.get<std::string>();
      } else if (kind == "reasoning" || kind == "thinking") {
        if (!value.is_string()) return invalid_input("a reasoning part without text");
        reasoning += value.get<std::string>();
      } else {
        return invalid_input(
            fmt::format("parts of type \"{}\" are not supported, only text", kind));
      }
    }
    turn.content = fill(std::move(text));
    if (!reasoning.empty()) turn.reasoning_content = fill(std::move(reasoning));
    if (!calls.empty()) turn.tool_calls = dump_json(calls);
    return {};
  }

  static const Json& part_value(const Json& part, const std::string& kind) {
    for (const std::string& key : {kind, std::string("text"), std::string("value")}) {
      const Json& value = field(part, key);
      if (!value.is_null()) return value;
    }
    return field(part, "value");
  }

  Result<> add_extras(Turn& turn, const Json& given) {
    Json calls = parsed(field(given, "tool_calls"));
    if (calls.is_discarded()) return invalid_input("tool_calls is a string, but not JSON");
    LORRY_ASSIGN(calls, rows_of_columns(std::move(calls)).with_context("tool_calls"));
    if (calls.is_null() || calls.empty()) calls = parsed(field(given, "function_call"));
    if (calls.is_discarded()) return invalid_input("function_call is a string, but not JSON");
    if (!calls.is_null() && !calls.empty()) {
      if (rules_.nulls_are_absent) remove_nulls(calls);
      LORRY_ASSIGN(const Json known, tool_calls(calls));
      if (known.is_null()) return invalid_input("a tool call without a function's name");
      turn.tool_calls = dump_json(known);
    }
    turn.tool_call_id = string_field(given, "tool_call_id");
    turn.name = string_field(given, "name");
    for (const char* key : {"reasoning_content", "thinking", "reasoning"}) {
      auto reasoning = string_field(given, key);
      if (!reasoning || turn.reasoning_content) continue;
      turn.reasoning_content = fill(std::move(*reasoning));
    }
    return {};
  }

  static std::optional<std::string> string_field(const Json& object, const char* key) {
    const Json& value = field(object, key);
    if (!value.is_string() || value == "") return std::nullopt;
    return value.get<std::string>();
  }

  /// A text, or text parts as Gemini ({"parts": [...]}) and Anthropic have them.
  Result<std::string> system_text() const {
    const Json& value = field(row_, rules_.system);
    const Json& parts = value.is_object() ? field(value, "parts") : value;
    if (!parts.is_array()) return text_of(rules_.system);
    std::string text;
    for (const Json& part : parts) {
      const Json& words = field(part, "text");
      if (!words.is_string()) return not_text(rules_.system);
      text += words.get<std::string>();
    }
    return text;
  }

  Result<> add_system() {
    LORRY_ASSIGN(std::string system, system_text());
    if (is_blank(system)) return {};
    if (!out_.turns.empty() && out_.turns[0].role == "system") {
      // As LLaMA-Factory takes such rows: the conversation's own goes before the column's.
      if (out_.turns[0].content.find(system) == std::string::npos) {
        out_.notes.insert(fmt::format("column {} left out beside a system turn", rules_.system));
      }
      return {};
    }
    out_.turns.insert(out_.turns.begin(), Turn{"system", fill(std::move(system))});
    return {};
  }

  Result<> add_tools() {
    LORRY_ASSIGN(const Json definitions, definitions_of_tools());
    if (!definitions.empty()) out_.tools = dump_json(definitions);
    return {};
  }

  /// Of a prompt that is a request with its tools in it.
  const Json& tools_of_request() const {
    return field(field(row_, rules_.prompt), names::kRequestTools);
  }

  /// A list, empty if the row has no tools.
  Result<Json> definitions_of_tools() const {
    const Json& given = rules_.tools.empty() ? tools_of_request() : field(row_, rules_.tools);
    if (given.is_null() || given == "") return Json::array();
    Json tools = parsed(given);
    if (tools.is_discarded()) {
      return invalid_input(fmt::format("column {} is a string, but not JSON", rules_.tools));
    }
    LORRY_ASSIGN(
        tools,
        rows_of_columns(std::move(tools)).with_context(fmt::format("column {}", rules_.tools)));
    if (!given.is_string()) remove_nulls(tools);
    return tool_definitions(tools).with_context(fmt::format("column {}", rules_.tools));
  }

  void judge() {
    if (out_.turns.empty()) {
      out_.dropped = "empty conversation";
    } else if (std::none_of(out_.turns.begin(), out_.turns.end(), is_answer)) {
      out_.dropped = "no assistant turn";
    } else {
      judge_answers();
    }
  }

  /// An empty answer teaches to say nothing: it is context, as one that is marked so.
  void judge_answers() {
    bool marked = false, empty = false, learned = false;
    for (Turn& turn : out_.turns) {
      if (!is_answer(turn)) continue;
      marked |= !turn.learned;
      const bool silent = turn.learned && says_nothing(turn);
      empty |= silent;
      turn.learned = turn.learned && !silent;
      learned |= turn.learned;
    }
    if (!learned) {
      out_.dropped = marked ? "every answer marked as not to be learned" : "empty answer";
      return;
    }
    if (marked) out_.notes.insert("answers marked as not to be learned");
    if (empty) out_.notes.insert("empty answers, not learned");
  }

  std::string fill(std::string text) {
    return fill_placeholders(std::move(text), rules_.placeholders, out_.placeholders, out_.filled);
  }

  const RowRules& rules_;
  const Json& row_;
  StandardRow out_;
};

}  // namespace

Result<StandardRow> standardize_row(const RowRules& rules, const Json& row) {
  return RowStandardizer(rules, row).run();
}

}  // namespace lorry::data

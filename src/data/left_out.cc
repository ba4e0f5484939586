#include "data/left_out.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "data/row_values.h"

namespace lorry::data {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\v\f\r";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

bool is_repeated(std::string_view text, const std::vector<Turn>& turns) {
  return std::any_of(turns.begin(), turns.end(), [&](const Turn& turn) {
    return turn.content.find(text) != std::string::npos;
  });
}

/// What to do about a column that seems to belong to the prompt.
std::string remedy(const RowRules& rules, const std::string& column) {
  const std::string leave = fmt::format("--ignore-columns {} leaves it out", column);
  const bool is_pair = !rules.prompt.empty();
  if (!is_pair) {
    if (!rules.system.empty()) return leave;
    return fmt::format("--columns system={} makes it the system message, {}", column, leave);
  }
  if (!rules.input.empty()) {
    return fmt::format("--columns input={} takes it in place of {}, {}", column, rules.input,
                       leave);
  }
  return fmt::format("--columns input={} puts it after the prompt, {}", column, leave);
}

using Words = std::unordered_set<std::string>;

/// Words of four bytes or more, in lower case; bytes beyond ASCII count as letters.
void add_words(std::string_view text, Words& words) {
  constexpr size_t kShortest = 4;
  std::string word;
  const auto end_word = [&] {
    if (word.size() >= kShortest) words.insert(word);
    word.clear();
  };
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) || byte >= 0x80) {
      word += char(std::tolower(byte));
    } else {
      end_word();
    }
  }
  end_word();
}

double share(const Words& words, const Words& of) {
  if (words.empty()) return 0;
  const auto n = std::count_if(words.begin(), words.end(),
                               [&](const auto& word) { return of.contains(word); });
  return double(n) / double(words.size());
}

/// The words of a row: those of its prompt, and those that only its answer has.
struct RowWords {
  Words prompt, answer;
  StandardRow row;
};

RowWords words_of(StandardRow row) {
  RowWords words;
  Words answer;
  for (const Turn& turn : row.turns) {
    add_words(turn.content, turn.role == "assistant" ? answer : words.prompt);
  }
  for (const auto& word : answer) {
    if (!words.prompt.contains(word)) words.answer.insert(word);
  }
  words.row = std::move(row);
  return words;
}

/// Means over the rows in which a column adds something.
struct Sharing {
  double answer = 0;  ///< part of the answer's words that the column has
  double others = 0;  ///< the same of the next row's answer
  double prompt = 0;
  int rows = 0;
};

Sharing sharing_of(const std::string& column, const std::vector<Json>& sample,
                   const std::vector<RowWords>& rows) {
  Sharing sum;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Json& value = field(sample[i], column);
    if (!value.is_string() || rows[i].answer.empty()) continue;
    // The row once more as JSON says nothing new either.
    const Json inside = parsed(value);
    if (!adds_text(inside.is_structured() ? inside : value, rows[i].row.turns)) continue;
    Words words;
    add_words(value.get_ref<const std::string&>(), words);
    sum.answer += share(rows[i].answer, words);
    sum.prompt += share(rows[i].prompt, words);
    if (rows.size() > 1) sum.others += share(rows[(i + 1) % rows.size()].answer, words);
    ++sum.rows;
  }
  if (sum.rows == 0) return sum;
  return {sum.answer / sum.rows, sum.others / sum.rows, sum.prompt / sum.rows, sum.rows};
}

bool looks_like_input(const Sharing& sharing) {
  const bool is_rendering = sharing.answer > 0.9 && sharing.prompt > 0.9;
  return !is_rendering && sharing.answer >= 0.5 && sharing.answer - sharing.others >= 0.3;
}

}  // namespace

bool holds_nothing(const Json& value) {
  if (value.is_null()) return true;
  if (value.is_string()) return is_blank(value.get_ref<const std::string&>());
  if (!value.is_structured()) return false;
  return std::all_of(value.begin(), value.end(), holds_nothing);
}

bool adds_text(const Json& value, const std::vector<Turn>& turns) {
  if (value.is_string()) {
    const auto text = trimmed(value.get_ref<const std::string&>());
    return !text.empty() && !is_repeated(text, turns);
  }
  if (value.is_array()) {
    return std::any_of(value.begin(), value.end(),
                       [&](const Json& inner) { return adds_text(inner, turns); });
  }
  if (!value.is_object()) return false;
  for (const auto& [key, inner] : value.items()) {
    if (key != "role" && key != "from" && key != "type" && adds_text(inner, turns)) return true;
  }
  return false;
}

Result<> check_left_out(const RowRules& rules, const Json& row, const StandardRow& done) {
  for (const auto& column : rules.media) {
    if (holds_nothing(field(row, column))) continue;
    return invalid_input(
        fmt::format("column {} holds what a model of text does not see; --ignore-columns {} trains "
                    "on the text alone",
                    column, column));
  }
  for (const auto& column : rules.watched) {
    if (!adds_text(field(row, column), done.turns)) continue;
    return invalid_input(fmt::format(
        "column {} looks like a part of the prompt, and the row would be learned without it; {}",
        column, remedy(rules, column)));
  }
  return {};
}

Result<> check_shared_words(const RowRules& rules, const std::vector<Json>& sample,
                            const std::vector<std::string>& columns) {
  if (columns.empty()) return {};
  std::vector<Json> kept;
  std::vector<RowWords> rows;
  for (const Json& row : sample) {
    auto done = standardize_row(rules, row);
    if (!done.ok() || !done->dropped.empty()) continue;
    kept.push_back(row);
    rows.push_back(words_of(*std::move(done)));
  }
  for (const auto& column : columns) {
    const auto sharing = sharing_of(column, kept, rows);
    if (!looks_like_input(sharing)) continue;
    return invalid_input(fmt::format(
        "column {} seems to belong to the prompt: it has {:.0f} % of the words that the answers "
        "have and their prompts have not; {}; if it is the reasoning before the answer, --columns "
        "reasoning={}",
        column, 100 * sharing.answer, remedy(rules, column), column));
  }
  return {};
}

}  // namespace lorry::data

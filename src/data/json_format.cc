// Rows of JSON files. Parsed by simdjson, which also checks that strings are UTF-8.
#include <arrow/array/util.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <tuple>

#include "base/json.h"
#include "data/json_columns.h"
#include "data/json_splitter.h"
#include "data/json_types.h"
#include "data/non_finite.h"
#include "data/text_format.h"
#include "store/arrow_error.h"

namespace lorry::data {
namespace {

static_assert(kBlockPadding >= simdjson::SIMDJSON_PADDING);

std::string_view describe(simdjson::error_code error) {
  switch (error) {
    case simdjson::UTF8_ERROR:
      return "not UTF-8 text";
    case simdjson::EMPTY:
      return "an empty row";
    case simdjson::STRING_ERROR:
      return "not valid JSON (a string with a wrong escape or surrogate pair)";
    case simdjson::UNCLOSED_STRING:
    case simdjson::UNESCAPED_CHARS:
      return "not valid JSON (a string is not closed, or holds a control character)";
    case simdjson::NUMBER_ERROR:
      return "not valid JSON (a number)";
    case simdjson::DEPTH_ERROR:
      return "nested too deeply";
    default:
      return "not valid JSON";
  }
}

/// The rows of a block, parsed one after another.
class RowParser {
 public:
  explicit RowParser(const Block& block) : block_(block) {}

  /// Calls `row(element, line())` for each well-formed row until it returns false,
  /// `bad(line, what)` for the others.
  template <typename OnRow, typename OnBad>
  void each(OnRow row, OnBad bad) {
    if (block_.rows.empty()) {
      each_line(row, bad);
      return;
    }
    for (const auto& [begin, size] : block_.rows) {
      const size_t at = begin;
      if (!one(
              at, size, [&] { return line_of(at); }, row, bad)) {
        return;
      }
    }
  }

 private:
  template <typename OnRow, typename OnBad>
  void each_line(OnRow& row, OnBad& bad) {
    int64_t line = block_.begin.line;
    for (size_t begin = 0; begin < block_.size; ++line) {
      const void* found = std::memchr(block_.data() + begin, '\n', block_.size - begin);
      const size_t end =
          found ? size_t(static_cast<const char*>(found) - block_.data()) : block_.size;
      if (!is_blank(begin, end)) {
        if (!one(
                begin, end - begin, [&] { return line; }, row, bad)) {
          return;
        }
      }
      begin = end + 1;
    }
  }

  bool is_blank(size_t begin, size_t end) const {
    const std::string_view text(block_.data() + begin, end - begin);
    return text.find_first_not_of(" \t\r") == std::string_view::npos;
  }

  template <typename Line, typename OnRow, typename OnBad>
  bool one(size_t begin, size_t size, Line line, OnRow& row, OnBad& bad) {
    simdjson::dom::element element;
    const std::string_view text(block_.data() + begin, size);
    auto error = parser_.parse(text.data(), size, false).get(element);
    if (error && error != simdjson::UTF8_ERROR) error = parse_rewritten(text, error, element);
    if (!error) return row(element, line);
    const auto objects = objects_on_line(text);
    if (objects.empty()) bad(line(), describe(error));
    for (const auto& [at, length] : objects) {
      if (!one(begin + at, length, line, row, bad)) return false;
    }
    return true;
  }

  /// A row that simdjson refuses with `error`, as it may take it: NaN as null; integers past 64
  /// bits as doubles, like Arrow and pandas read them.
  simdjson::error_code parse_rewritten(std::string_view row, simdjson::error_code error,
                                       simdjson::dom::element& element) {
    if (auto finite = without_non_finite_numbers(row)) {
      rewritten_ = *std::move(finite);
      error = parser_.parse(rewritten_).get(element);
    } else {
      rewritten_ = row;
    }
    if (error != simdjson::NUMBER_ERROR) return error;
    const auto again = parse_json(rewritten_, "");
    if (!again.ok()) return error;
    rewritten_ = dump_json(*again);
    return parser_.parse(rewritten_).get(element);
  }

  int64_t line_of(size_t at) const {
    const std::string_view before(block_.data(), at);
    return block_.begin.line + std::count(before.begin(), before.end(), '\n');
  }

  const Block& block_;
  simdjson::dom::parser parser_;
  std::string rewritten_;
};

constexpr char kNotARow[] = "a row must be a JSON object or a string";
constexpr char kKeyTwice[] = "an object names a key twice";

struct JsonObservation final : Observation {
  JsonTypes types;
  bool strings = false;     ///< rows that are bare strings: a `text` column
  int64_t string_rows = 0;  ///< of the rows; counted while they are converted
};

class JsonFormat final : public TextFormat {
 public:
  std::unique_ptr<TextFormat> fresh() const override { return std::make_unique<JsonFormat>(); }

  Result<std::unique_ptr<BlockSplitter>> split(const SourceFile& file, const Place& from,
                                               int64_t block_bytes) override {
    return split_json(file, from, block_bytes);
  }

  Result<std::optional<Block>> sample(const SourceFile& file, int64_t offset,
                                      int64_t bytes) override {
    return sample_json(file, offset, bytes);
  }

  std::unique_ptr<Observation> observe(const Block& block) const override {
    auto seen = observe_rows(block, /*check_keys=*/false);
    return seen ? std::move(seen) : observe_rows(block, /*check_keys=*/true);
  }

  Result<> merge(const Observation& observation, const Block& block) override {
    const auto& seen = static_cast<const JsonObservation&>(observation);
    types_.merge(seen.types);
    strings_ |= seen.strings;
    if (strings_ && types_.rows() > 0) {
      return invalid_input(fmt::format("{}: line {}: some rows are objects and some are strings",
                                       *block.path, block.begin.line));
    }
    return {};
  }

  void merge(const TextFormat& other) override {
    const auto& more = static_cast<const JsonFormat&>(other);
    types_.merge(more.types_);
    strings_ |= more.strings_;
  }

  Result<std::shared_ptr<arrow::Schema>> schema() const override {
    auto fields =
        strings_ ? arrow::FieldVector{arrow::field("text", arrow::utf8())} : types_.row_fields();
    if (fields.empty()) return invalid_input("no row has a column; the data set is empty");
    return arrow::schema(std::move(fields));
  }

  Result<Converted> convert(const Block& block,
                            const std::shared_ptr<arrow::Schema>& schema) const override {
    auto seen = std::make_unique<JsonObservation>();
    JsonColumn rows(arrow::struct_(schema->fields()));
    auto [done, line] = append_rows(block, /*check_keys=*/false, rows, *seen);
    if (done == Appended::kTwice) {
      // Only now, as it costs: a row that is left out must leave nothing behind.
      seen = std::make_unique<JsonObservation>();
      rows = JsonColumn(arrow::struct_(schema->fields()));
      std::tie(done, line) = append_rows(block, /*check_keys=*/true, rows, *seen);
    }
    if (done == Appended::kFull) {
      return unsupported(
          fmt::format("{}: line {}: too many values in one column", *block.path, line));
    }
    Converted converted;
    if (done == Appended::kUnfit) {
      converted.seen = observe(block);
      return converted;
    }
    seen->rows = rows.length();
    // Rows of strings alone went past the types.
    if (seen->string_rows < rows.length()) seen->types = rows.seen();
    auto data = rows.finish();
    if (!data.ok()) return store::from_arrow(data.status(), *block.path);
    converted.rows = arrow::RecordBatch::Make(schema, rows.length(), (*data)->child_data);
    converted.seen = std::move(seen);
    return converted;
  }

  Json to_json() const override { return Json{{"strings", strings_}, {"types", types_.to_json()}}; }

  Result<> from_json(const Json& json) override {
    if (!json.is_object() || !json.contains("types") || !json.contains("strings") ||
        !json["strings"].is_boolean()) {
      return corrupt_data("not the types of rows");
    }
    LORRY_ASSIGN(types_, JsonTypes::from_json(json["types"]));
    strings_ = json["strings"].get<bool>();
    return {};
  }

 private:
  static void add_bad(Observation& seen, int64_t line, std::string_view what) {
    seen.bad.push_back({{}, line, std::string(what)});
  }

  /// Null if some row names a key twice and was taken in before that came out.
  static std::unique_ptr<JsonObservation> observe_rows(const Block& block, bool check_keys) {
    auto seen = std::make_unique<JsonObservation>();
    RowParser(block).each(
        [&](simdjson::dom::element row, auto line) {
          if (row.is_string()) {
            seen->strings = true;
            ++seen->rows;
          } else if (!row.is_object()) {
            add_bad(*seen, line(), kNotARow);
          } else if (check_keys && !names_keys_once(row)) {
            add_bad(*seen, line(), kKeyTwice);
          } else if (seen->types.add(row)) {
            ++seen->rows;
          } else {
            seen.reset();
          }
          return seen != nullptr;
        },
        [&](int64_t line, std::string_view what) { add_bad(*seen, line, what); });
    return seen;
  }

  /// What stopped it and on which line; kYes when nothing did.
  static std::pair<Appended, int64_t> append_rows(const Block& block, bool check_keys,
                                                  JsonColumn& rows, JsonObservation& seen) {
    std::pair<Appended, int64_t> done{Appended::kYes, 0};
    RowParser(block).each(
        [&](simdjson::dom::element row, auto line) {
          if (row.is_string()) {
            seen.strings = true;
            ++seen.string_rows;
            done.first = rows.append_string_row(row.get_string().value_unsafe());
          } else if (!row.is_object()) {
            add_bad(seen, line(), kNotARow);
          } else if (check_keys && !names_keys_once(row)) {
            add_bad(seen, line(), kKeyTwice);
          } else {
            done.first = rows.append_object(row.get_object().value_unsafe());
          }
          if (done.first != Appended::kYes) done.second = line();
          return done.first == Appended::kYes;
        },
        [&](int64_t line, std::string_view what) { add_bad(seen, line, what); });
    return done;
  }

  JsonTypes types_;
  bool strings_ = false;
};

}  // namespace

std::unique_ptr<TextFormat> make_json_format() { return std::make_unique<JsonFormat>(); }

}  // namespace lorry::data

// Rows of JSON files. Parsed by simdjson, which also checks that strings are UTF-8.
#include <arrow/array/util.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <arrow/util/key_value_metadata.h>
#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "data/json_columns.h"
#include "data/json_splitter.h"
#include "data/json_types.h"
#include "data/text_format.h"

namespace lorry::data {
namespace {

static_assert(kBlockPadding >= simdjson::SIMDJSON_PADDING);

/// In the schema's metadata: some row named a key twice, so rows must be checked for it again.
constexpr char kRepeatedKeys[] = "lorry:repeated-keys";

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

  /// Calls `row(element)` for each well-formed row, `bad(line, what)` for the others.
  template <typename OnRow, typename OnBad>
  void each(OnRow row, OnBad bad) {
    if (block_.rows.empty()) {
      each_line(row, bad);
      return;
    }
    for (const auto [begin, size] : block_.rows) {
      one(
          begin, size, [&] { return line_of(begin); }, row, bad);
    }
  }

 private:
  template <typename OnRow, typename OnBad>
  void each_line(OnRow& row, OnBad& bad) {
    int64_t line = block_.begin.line;
    for (size_t begin = 0; begin < block_.size; ++line) {
      const void* found = std::memchr(block_.bytes.data() + begin, '\n', block_.size - begin);
      const size_t end =
          found ? size_t(static_cast<const char*>(found) - block_.bytes.data()) : block_.size;
      if (!is_blank(begin, end)) {
        one(
            begin, end - begin, [&] { return line; }, row, bad);
      }
      begin = end + 1;
    }
  }

  bool is_blank(size_t begin, size_t end) const {
    const std::string_view text(block_.bytes.data() + begin, end - begin);
    return text.find_first_not_of(" \t\r") == std::string_view::npos;
  }

  template <typename Line, typename OnRow, typename OnBad>
  void one(size_t begin, size_t size, Line line, OnRow& row, OnBad& bad) {
    simdjson::dom::element element;
    auto error = parser_.parse(block_.bytes.data() + begin, size, false).get(element);
    if (error == simdjson::NUMBER_ERROR) {
      // An integer past 64 bits, perhaps: as a double, like Arrow and pandas read it.
      const auto again = parse_json({block_.bytes.data() + begin, size}, "");
      if (again.ok()) {
        rewritten_ = dump_json(*again);
        error = parser_.parse(rewritten_).get(element);
      }
    }
    if (error) {
      bad(line(), describe(error));
    } else {
      row(element, line);
    }
  }

  int64_t line_of(size_t at) const {
    const std::string_view before(block_.bytes.data(), at);
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
  bool strings = false;  ///< rows that are bare strings: a `text` column
  bool repeated_keys = false;
};

bool names_keys_once(simdjson::dom::element value) {
  JsonTypes scratch;
  return scratch.add(value);
}

class JsonFormat final : public TextFormat {
 public:
  Result<std::unique_ptr<BlockSplitter>> split(const SourceFile& file, const Place& from,
                                               int64_t block_bytes) override {
    return split_json(file, from, block_bytes);
  }

  std::unique_ptr<Observation> observe(const Block& block) const override {
    auto seen = std::make_unique<JsonObservation>();
    RowParser(block).each(
        [&](simdjson::dom::element row, auto line) {
          if (row.is_string()) {
            seen->strings = true;
            ++seen->rows;
          } else if (!row.is_object()) {
            seen->bad.push_back({line(), kNotARow});
          } else if (!seen->types.add(row)) {
            seen->repeated_keys = true;
            seen->bad.push_back({line(), kKeyTwice});
          } else {
            ++seen->rows;
          }
        },
        [&](int64_t line, std::string_view what) {
          seen->bad.push_back({line, std::string(what)});
        });
    return seen;
  }

  Result<> merge(Observation& observation, const Block& block) override {
    auto& seen = static_cast<JsonObservation&>(observation);
    types_.merge(seen.types);
    strings_ |= seen.strings;
    repeated_keys_ |= seen.repeated_keys;
    if (strings_ && types_.rows() > 0) {
      return invalid_input(fmt::format("{}: line {}: some rows are objects and some are strings",
                                       *block.path, block.begin.line));
    }
    return {};
  }

  Result<std::shared_ptr<arrow::Schema>> schema() const override {
    auto fields =
        strings_ ? arrow::FieldVector{arrow::field("text", arrow::utf8())} : types_.row_fields();
    if (fields.empty()) return invalid_input("no row has a column; the data set is empty");
    auto schema = arrow::schema(std::move(fields));
    if (repeated_keys_)
      schema = schema->WithMetadata(arrow::key_value_metadata({{kRepeatedKeys, "1"}}));
    return schema;
  }

  Result<Converted> convert(const Block& block,
                            const std::shared_ptr<arrow::Schema>& schema) const override {
    JsonColumn rows(arrow::struct_(schema->fields()));
    const bool check_keys = schema->metadata() && schema->metadata()->Contains(kRepeatedKeys);
    Converted converted;
    arrow::Status status;
    RowParser(block).each(
        [&](simdjson::dom::element row, auto line) {
          if (!status.ok()) return;
          if (row.is_string()) {
            status = append_string(rows, row);
          } else if (!row.is_object() || (check_keys && !names_keys_once(row))) {
            ++converted.bad;
          } else {
            status = rows.append_object(row.get_object().value_unsafe());
          }
          if (!status.ok()) {
            status = status.WithMessage(fmt::format("line {}: {}", line(), status.message()));
          }
        },
        [&](int64_t, std::string_view) { ++converted.bad; });
    if (!status.ok()) return invalid_input(fmt::format("{}: {}", *block.path, status.message()));
    auto data = rows.finish();
    if (!data.ok()) return unavailable(data.status().message());
    converted.rows = arrow::RecordBatch::Make(schema, rows.length(), (*data)->child_data);
    return converted;
  }

 private:
  static arrow::Status append_string(JsonColumn& rows, simdjson::dom::element row) {
    // As the object {"text": row}, through the same parser that rows of objects take.
    const std::string text = R"({"text":)" + std::string(simdjson::minify(row)) + "}";
    simdjson::dom::parser parser;
    simdjson::dom::element wrapped;
    if (parser.parse(text).get(wrapped)) return arrow::Status::Invalid("not a string");
    return rows.append_object(wrapped.get_object().value_unsafe());
  }

  JsonTypes types_;
  bool strings_ = false;
  bool repeated_keys_ = false;
};

}  // namespace

std::unique_ptr<TextFormat> make_json_format() { return std::make_unique<JsonFormat>(); }

}  // namespace lorry::data

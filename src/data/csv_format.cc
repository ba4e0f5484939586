// Rows of CSV and TSV files as `datasets` (pandas) splits them: the first record names the columns;
// fields may be quoted, quotes doubled, with line breaks inside; empty fields are null.
//
// Any column may turn out to be what a model is to say, so a column has a type only if that loses
// nothing: it is int64, double or bool where every field is spelled as that value is written in
// JSON, and else it is text. 007, 1.10, True and NA are text (pandas makes 7, 1.1, true and null).
#include <arrow/array/util.h>
#include <arrow/builder.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <fmt/format.h>
#include <simdjson.h>  // validate_utf8

#include <algorithm>
#include <charconv>
#include <cmath>
#include <deque>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "data/text_format.h"
#include "store/arrow_error.h"

namespace lorry::data {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

std::optional<bool> as_bool(std::string_view field) {
  if (field == "true") return true;
  if (field == "false") return false;
  return std::nullopt;
}

template <typename T>
std::optional<T> parsed(std::string_view field) {
  T value{};
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (error != std::errc() || end != field.data() + field.size()) return std::nullopt;
  return value;
}

/// Integers without leading zeros, and without a sign but '-'.
std::optional<int64_t> as_integer(std::string_view field) {
  const auto digits = field.starts_with('-') ? field.substr(1) : field;
  if (digits.starts_with('0') && field != "0") return std::nullopt;
  return parsed<int64_t>(field);
}

/// Doubles that are written as `field` again.
std::optional<double> as_double(std::string_view field) {
  constexpr size_t kLongest = 24;  // -1.2345678901234567e-300
  if (field.size() > kLongest || field.find_first_of(".e") == std::string_view::npos) {
    return std::nullopt;
  }
  const auto value = parsed<double>(field);
  if (!value || !std::isfinite(*value) || dump_json(*value) != field) return std::nullopt;
  return value;
}

/// Splits records into fields, which are views into the text or, where quotes were doubled, into
/// the reader; valid until the next record.
class RecordReader {
 public:
  RecordReader(std::string_view text, char separator) : text_(text), separator_(separator) {}
  bool at_end() const { return pos_ >= text_.size(); }

  /// The next record that is not a blank line; false at the end.
  bool next(std::vector<std::string_view>& fields) {
    fields.clear();
    unquoted_used_ = 0;
    while (!at_end() && (text_[pos_] == '\n' || text_[pos_] == '\r')) skip_break();
    if (at_end()) return false;
    begin_line_ = lines_;
    while (true) {
      fields.push_back(field());
      if (at_end()) return true;
      if (text_[pos_] == separator_) {
        ++pos_;
        if (at_end()) fields.emplace_back();
        if (at_end()) return true;
        continue;
      }
      skip_break();
      return true;
    }
  }
  int64_t begin_line() const { return begin_line_; }  ///< line breaks before the record

 private:
  void skip_break() {
    if (text_[pos_] == '\r' && pos_ + 1 < text_.size() && text_[pos_ + 1] == '\n') ++pos_;
    ++pos_;
    ++lines_;
  }

  bool field_ends() const {
    return at_end() || text_[pos_] == separator_ || text_[pos_] == '\n' || text_[pos_] == '\r';
  }

  std::string_view field() {
    if (text_[pos_] == '"') return quoted();
    const size_t begin = pos_;
    while (!field_ends()) ++pos_;
    return text_.substr(begin, pos_ - begin);
  }

  std::string_view quoted() {
    const size_t begin = ++pos_;
    size_t end = std::min(text_.find('"', pos_), text_.size());
    const bool plain = end + 1 >= text_.size() || text_[end + 1] == separator_ ||
                       text_[end + 1] == '\n' || text_[end + 1] == '\r';
    if (plain) {
      pos_ = std::min(end + 1, text_.size());
      lines_ += count_lines(text_.substr(begin, end - begin));
      return text_.substr(begin, end - begin);
    }
    if (unquoted_used_ == unquoted_.size()) unquoted_.emplace_back();
    std::string& out = unquoted_[unquoted_used_++];
    out.clear();
    while (true) {
      out.append(text_.substr(pos_, end - pos_));
      pos_ = std::min(end + 1, text_.size());
      if (at_end() || text_[pos_] != '"') break;
      out.push_back('"');
      ++pos_;
      end = std::min(text_.find('"', pos_), text_.size());
    }
    lines_ += count_lines(text_.substr(begin, pos_ - begin));
    while (!field_ends()) out.push_back(text_[pos_++]);
    return out;
  }

  std::string_view text_;
  char separator_;
  size_t pos_ = 0;
  int64_t lines_ = 0;
  int64_t begin_line_ = 0;
  std::deque<std::string> unquoted_;  ///< a deque: views into its strings stay
  size_t unquoted_used_ = 0;
};

/// End of the last whole record, 0 if there is none: the last line break outside quotes.
class RecordScanner {
 public:
  explicit RecordScanner(char separator) : separator_(separator) {}
  size_t last_break(std::string_view text) {
    for (; at_ < text.size(); ++at_) {
      const char c = text[at_];
      if (quoted_) {
        if (c == '"') quoted_ = false, field_begins_ = false, closed_ = true;
        continue;
      }
      if (c == '"' && (field_begins_ || closed_)) {
        quoted_ = true;  // opens a field, or doubles the quote that seemed to close it
      } else if (c == '\n') {
        last_ = at_ + 1;
        field_begins_ = true;
        closed_ = false;
        continue;
      }
      closed_ = false;
      field_begins_ = c == separator_;
    }
    return last_;
  }
  bool quoted() const { return quoted_; }

 private:
  char separator_;
  size_t at_ = 0, last_ = 0;
  bool quoted_ = false, field_begins_ = true, closed_ = false;
};

class CsvSplitter final : public BlockSplitter {
 public:
  CsvSplitter(std::string path, char separator, Window window, const Place& from,
              int64_t block_bytes)
      : path_(std::move(path)),
        separator_(separator),
        window_(std::move(window)),
        line_(from.line),
        block_bytes_(size_t(block_bytes)) {}

  Result<std::optional<Block>> next() override {
    RecordScanner scanner(separator_);
    for (size_t want = block_bytes_;; want *= 2) {
      LORRY_TRY(window_.fill(std::min(want, kMaxRowBytes + 1)));
      const std::string_view text = window_.bytes().substr(0, want);
      if (text.empty()) return std::optional<Block>();
      size_t end = scanner.last_break(text);
      if (end == 0 && text.size() > kMaxRowBytes) return row_too_long(path_, line_);
      if (window_.at_end() && text.size() == window_.bytes().size()) {
        if (scanner.quoted()) {
          return corrupt_data(fmt::format(
              "{}: after line {}: a quote opens and is never closed; is the file cut short?", path_,
              line_));
        }
        end = text.size();
      }
      if (end == 0) continue;
      Block block;
      block.begin = Place{0, window_.offset(), line_, 0};
      line_ += count_lines(text.substr(0, end));
      block.size = end;
      block.buffer = window_.take(end);
      block.bytes_done = window_.stored_position();
      return block;
    }
  }

 private:
  std::string path_;
  char separator_;
  Window window_;
  int64_t line_;
  size_t block_bytes_;
};

enum : uint8_t { kNotInt = 2, kNotDouble = 4, kNotBool = 8, kSawValue = 16 };

struct CsvObservation final : Observation {
  std::vector<uint8_t> kinds;
};

class CsvFormat final : public TextFormat {
 public:
  explicit CsvFormat(char separator) : separator_(separator) {}

  std::unique_ptr<TextFormat> fresh() const override {
    auto format = std::make_unique<CsvFormat>(separator_);
    format->names_ = names_;
    return format;
  }

  Result<std::unique_ptr<BlockSplitter>> split(const SourceFile& file, const Place& from,
                                               int64_t block_bytes) override {
    LORRY_ASSIGN(auto source, ByteSource::open(file));
    Window window(std::move(source), 0);
    LORRY_TRY(read_header(window, file.path));
    if (from.offset > 0) {
      LORRY_ASSIGN(auto again, ByteSource::open(file));
      LORRY_TRY(again->skip_to(from.offset));
      window = Window(std::move(again), from.offset);
    }
    return std::unique_ptr<BlockSplitter>(
        std::make_unique<CsvSplitter>(file.path, separator_, std::move(window), from, block_bytes));
  }

  /// A line break may be inside a quoted field: rows can be told from a file's begin alone.
  Result<std::optional<Block>> sample(const SourceFile& file, int64_t offset,
                                      int64_t bytes) override {
    if (offset > 0) return std::optional<Block>();
    LORRY_ASSIGN(auto splitter, split(file, Place(), bytes));
    return splitter->next();
  }

  std::unique_ptr<Observation> observe(const Block& block) const override {
    auto seen = std::make_unique<CsvObservation>();
    seen->kinds.resize(names_.size());
    each(block, *seen, [](const std::vector<std::string_view>&) {});
    return seen;
  }

  Result<> merge(const Observation& observation, const Block&) override {
    const auto& seen = static_cast<const CsvObservation&>(observation);
    kinds_.resize(names_.size());
    for (size_t c = 0; c < names_.size(); ++c) kinds_[c] |= seen.kinds[c];
    return {};
  }

  void merge(const TextFormat& other) override {
    const auto& more = static_cast<const CsvFormat&>(other);
    if (names_.empty()) names_ = more.names_;
    kinds_.resize(names_.size());
    for (size_t c = 0; c < more.kinds_.size(); ++c) kinds_[c] |= more.kinds_[c];
  }

  Result<std::shared_ptr<arrow::Schema>> schema() const override {
    arrow::FieldVector fields;
    for (size_t c = 0; c < kinds_.size(); ++c) {
      fields.push_back(arrow::field(names_[c], type_of(kinds_[c])));
    }
    return arrow::schema(std::move(fields));
  }

  Result<Converted> convert(const Block& block,
                            const std::shared_ptr<arrow::Schema>& schema) const override {
    std::vector<std::unique_ptr<arrow::ArrayBuilder>> builders;
    for (const auto& field : schema->fields()) {
      auto builder = arrow::MakeBuilder(field->type());
      if (!builder.ok()) return unavailable(builder.status().message());
      builders.push_back(std::move(*builder));
    }
    auto seen = std::make_unique<CsvObservation>();
    seen->kinds.resize(names_.size());
    arrow::Status status;
    each(block, *seen, [&](const std::vector<std::string_view>& fields) {
      for (size_t c = 0; c < builders.size(); ++c) {
        status &= append(*builders[c], c < fields.size() ? fields[c] : "");
      }
    });
    if (!status.ok()) return invalid_input(fmt::format("{}: {}", *block.path, status.message()));
    Converted converted;
    bool fits = builders.size() == names_.size();
    for (size_t c = 0; fits && c < builders.size(); ++c) {
      const uint8_t known = c < kinds_.size() ? kinds_[c] : 0;
      fits = type_of(known | seen->kinds[c])->id() == builders[c]->type()->id();
    }
    arrow::ArrayVector columns;
    for (auto& builder : builders) {
      std::shared_ptr<arrow::Array> column;
      status &= builder->Finish(&column);
      columns.push_back(std::move(column));
    }
    if (!status.ok()) return store::from_arrow(status, *block.path);
    if (fits) converted.rows = arrow::RecordBatch::Make(schema, seen->rows, std::move(columns));
    converted.seen = std::move(seen);
    return converted;
  }

  Json to_json() const override { return Json{{"names", names_}, {"kinds", kinds_}}; }

  Result<> from_json(const Json& json) override {
    try {
      names_ = json.at("names").get<std::vector<std::string>>();
      kinds_ = json.at("kinds").get<std::vector<uint8_t>>();
      if (kinds_.size() <= names_.size()) return {};
    } catch (const nlohmann::json::exception&) {
    }
    return corrupt_data("not the types of rows");
  }

 private:
  /// The first file names the columns; the others must name the same.
  Result<> read_header(Window& window, const std::string& path) {
    LORRY_TRY(window.fill(1 << 20));
    std::string_view text = window.bytes();
    if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
    std::vector<std::string_view> fields;
    RecordReader reader(text, separator_);
    reader.next(fields);
    std::vector<std::string> names(fields.begin(), fields.end());
    if (names.empty()) return invalid_input(fmt::format("{}: the file is empty", path));
    for (const auto& name : names) {
      if (simdjson::validate_utf8(name.data(), name.size())) continue;
      return invalid_input(
          fmt::format("{}: the names of its columns are not UTF-8 text; save it as UTF-8", path));
    }
    std::set<std::string> used;
    for (size_t c = 0; c < names.size(); ++c) {
      if (names[c].empty()) names[c] = fmt::format("Unnamed: {}", c);
      const std::string base = names[c];
      for (int n = 1; !used.insert(names[c]).second; ++n) names[c] = fmt::format("{}.{}", base, n);
    }
    if (names_.empty()) {
      names_ = std::move(names);
    } else if (names != names_) {
      return invalid_input(fmt::format("{}: its columns are not those of the first file", path));
    }
    return {};
  }

  /// Counts and kinds of the block's rows into `seen`, and `row(fields)` for each.
  template <typename OnRow>
  void each(const Block& block, CsvObservation& seen, OnRow row) const {
    std::string_view text = block.text();
    const bool is_utf8 = simdjson::validate_utf8(text.data(), text.size());
    const bool has_header = block.begin.offset == 0;
    if (has_header && text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
    RecordReader reader(text, separator_);
    std::vector<std::string_view> fields;
    if (has_header) reader.next(fields);
    auto add_bad = [&](std::string what) {
      seen.bad.push_back({{}, block.begin.line + reader.begin_line(), std::move(what)});
    };
    while (reader.next(fields)) {
      if (fields.size() > names_.size()) {
        add_bad(fmt::format("{} fields, but there are {} columns", fields.size(), names_.size()));
      } else if (!is_utf8 && !std::all_of(fields.begin(), fields.end(), [](auto field) {
                   return simdjson::validate_utf8(field.data(), field.size());
                 })) {
        add_bad("not UTF-8 text");
      } else {
        for (size_t c = 0; c < names_.size(); ++c) {
          seen.kinds[c] |= kind_of(c < fields.size() ? fields[c] : "", seen.kinds[c]);
        }
        ++seen.rows;
        row(fields);
      }
    }
  }

  static uint8_t kind_of(std::string_view field, uint8_t known) {
    if (field.empty()) return 0;
    uint8_t kind = kSawValue;
    if (!(known & kNotBool) && !as_bool(field)) kind |= kNotBool;
    if (!(known & kNotInt) && !as_integer(field)) kind |= kNotInt;
    if (!(known & kNotDouble) && !as_double(field)) kind |= kNotDouble;
    return kind;
  }

  /// A column without any value is double, as pandas has it.
  static std::shared_ptr<arrow::DataType> type_of(uint8_t kind) {
    if (!(kind & kSawValue)) return arrow::float64();
    if (!(kind & kNotBool)) return arrow::boolean();
    if (!(kind & kNotInt)) return arrow::int64();
    if (!(kind & kNotDouble)) return arrow::float64();
    return arrow::utf8();
  }

  static arrow::Status append(arrow::ArrayBuilder& builder, std::string_view field) {
    if (field.empty()) return builder.AppendNull();
    switch (builder.type()->id()) {
      case arrow::Type::BOOL:
        return static_cast<arrow::BooleanBuilder&>(builder).Append(as_bool(field).value_or(false));
      case arrow::Type::INT64:
        return static_cast<arrow::Int64Builder&>(builder).Append(as_integer(field).value_or(0));
      case arrow::Type::DOUBLE:
        return static_cast<arrow::DoubleBuilder&>(builder).Append(as_double(field).value_or(0));
      default:
        return static_cast<arrow::StringBuilder&>(builder).Append(field);
    }
  }

  char separator_;
  std::vector<std::string> names_;
  std::vector<uint8_t> kinds_;
};

}  // namespace

std::unique_ptr<TextFormat> make_csv_format(char separator) {
  return std::make_unique<CsvFormat>(separator);
}

}  // namespace lorry::data

// Rows of CSV and TSV files as `datasets` (pandas) reads them: the first record names the columns;
// fields may be quoted, quotes doubled, with line breaks inside; a column is int64, double, bool or
// string by all of its fields; empty fields and the usual words for "missing" are null.
#include <arrow/array/util.h>
#include <arrow/builder.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <arrow/util/utf8.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <set>

#include "data/text_format.h"

namespace lorry::data {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

/// pandas' words for a missing value.
constexpr std::array<std::string_view, 18> kMissing = {
    "",        "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND",
    "1.#QNAN", "<NA>", "N/A",      "NA",  "NULL",    "NaN",      "None", "n/a",  "nan"};
bool is_missing(std::string_view field) {
  return std::find(kMissing.begin(), kMissing.end(), field) != kMissing.end() || field == "null";
}

std::optional<bool> as_bool(std::string_view field) {
  if (field == "True" || field == "TRUE" || field == "true") return true;
  if (field == "False" || field == "FALSE" || field == "false") return false;
  return std::nullopt;
}

std::string_view trimmed(std::string_view field) {
  while (!field.empty() && field.front() == ' ') field.remove_prefix(1);
  while (!field.empty() && field.back() == ' ') field.remove_suffix(1);
  if (field.size() > 1 && field[0] == '+' && field[1] != '-') field.remove_prefix(1);
  return field;
}

template <typename T>
std::optional<T> as_number(std::string_view field) {
  field = trimmed(field);
  T value{};
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (error != std::errc() || end != field.data() + field.size()) return std::nullopt;
  return value;
}

/// Splits records into fields. `pos` moves past the record's line break.
class RecordReader {
 public:
  RecordReader(std::string_view text, char separator) : text_(text), separator_(separator) {}
  bool at_end() const { return pos_ >= text_.size(); }
  int64_t lines() const { return lines_; }  ///< line breaks passed

  /// The next record that is not a blank line; false at the end.
  bool next(std::vector<std::string>& fields) {
    fields.clear();
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
  int64_t begin_line() const { return begin_line_; }

 private:
  void skip_break() {
    if (text_[pos_] == '\r' && pos_ + 1 < text_.size() && text_[pos_ + 1] == '\n') ++pos_;
    ++pos_;
    ++lines_;
  }

  std::string field() {
    std::string out;
    if (text_[pos_] == '"') {
      ++pos_;
      while (!at_end()) {
        const char c = text_[pos_++];
        if (c == '\n') ++lines_;
        if (c != '"') {
          out.push_back(c);
        } else if (!at_end() && text_[pos_] == '"') {
          out.push_back('"');
          ++pos_;
        } else {
          break;
        }
      }
    }
    while (!at_end() && text_[pos_] != separator_ && text_[pos_] != '\n' && text_[pos_] != '\r') {
      out.push_back(text_[pos_++]);
    }
    return out;
  }

  std::string_view text_;
  char separator_;
  size_t pos_ = 0;
  int64_t lines_ = 0;
  int64_t begin_line_ = 0;
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
  CsvSplitter(std::string path, char separator, std::unique_ptr<ByteSource> source,
              const Place& from, int64_t block_bytes)
      : path_(std::move(path)),
        separator_(separator),
        window_(std::move(source), from.offset),
        line_(from.line),
        block_bytes_(size_t(block_bytes)) {}

  Result<std::optional<Block>> next() override {
    RecordScanner scanner(separator_);
    for (size_t want = block_bytes_;; want *= 2) {
      LORRY_TRY(window_.fill(std::min(want, kMaxRowBytes + 1)));
      const std::string_view text = window_.bytes();
      if (text.empty()) return std::optional<Block>();
      size_t end = scanner.last_break(text);
      if (end == 0 && text.size() > kMaxRowBytes) return row_too_long(path_, line_);
      if (window_.at_end()) {
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
      line_ += std::count(text.begin(), text.begin() + std::ptrdiff_t(end), '\n');
      block.size = end;
      block.bytes = window_.take(end);
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

enum : uint8_t { kSawMissing = 1, kNotInt = 2, kNotDouble = 4, kNotBool = 8, kSawValue = 16 };

struct CsvObservation final : Observation {
  std::vector<uint8_t> kinds;
};

class CsvFormat final : public TextFormat {
 public:
  explicit CsvFormat(char separator) : separator_(separator) {}

  Result<std::unique_ptr<BlockSplitter>> split(const SourceFile& file, const Place& from,
                                               int64_t block_bytes) override {
    LORRY_TRY(read_header(file));
    LORRY_ASSIGN(auto source, ByteSource::open(file));
    if (from.offset > 0) LORRY_TRY(source->skip_to(from.offset));
    return std::unique_ptr<BlockSplitter>(
        std::make_unique<CsvSplitter>(file.path, separator_, std::move(source), from, block_bytes));
  }

  std::unique_ptr<Observation> observe(const Block& block) const override {
    auto seen = std::make_unique<CsvObservation>();
    seen->kinds.resize(names_.size());
    each(
        block,
        [&](const std::vector<std::string>& fields) {
          for (size_t c = 0; c < names_.size(); ++c) {
            seen->kinds[c] |= kind_of(c < fields.size() ? fields[c] : "", seen->kinds[c]);
          }
          ++seen->rows;
        },
        [&](int64_t line, std::string what) {
          seen->bad.push_back({line, std::move(what)});
        });
    return seen;
  }

  Result<> merge(Observation& observation, const Block&) override {
    const auto& seen = static_cast<CsvObservation&>(observation);
    kinds_.resize(names_.size());
    for (size_t c = 0; c < names_.size(); ++c) kinds_[c] |= seen.kinds[c];
    return {};
  }

  Result<std::shared_ptr<arrow::Schema>> schema() const override {
    arrow::FieldVector fields;
    for (size_t c = 0; c < names_.size(); ++c) {
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
    Converted converted;
    arrow::Status status;
    int64_t rows = 0;
    each(
        block,
        [&](const std::vector<std::string>& fields) {
          for (size_t c = 0; c < builders.size(); ++c) {
            status &= append(*builders[c], c < fields.size() ? fields[c] : "");
          }
          ++rows;
        },
        [&](int64_t, std::string) { ++converted.bad; });
    arrow::ArrayVector columns;
    for (auto& builder : builders) {
      std::shared_ptr<arrow::Array> column;
      status &= builder->Finish(&column);
      columns.push_back(std::move(column));
    }
    if (!status.ok()) return invalid_input(fmt::format("{}: {}", *block.path, status.message()));
    converted.rows = arrow::RecordBatch::Make(schema, rows, std::move(columns));
    return converted;
  }

 private:
  /// The first file names the columns; the others must name the same.
  Result<> read_header(const SourceFile& file) {
    const std::string& path = file.path;
    LORRY_ASSIGN(auto source, ByteSource::open(file));
    Window window(std::move(source), 0);
    LORRY_TRY(window.fill(1 << 20));
    std::string_view text = window.bytes();
    if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
    std::vector<std::string> names;
    RecordReader(text, separator_).next(names);
    if (names.empty()) return invalid_input(fmt::format("{}: the file is empty", path));
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

  template <typename OnRow, typename OnBad>
  void each(const Block& block, OnRow row, OnBad bad) const {
    std::string_view text = block.text();
    const bool has_header = block.begin.offset == 0;
    if (has_header && text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
    RecordReader reader(text, separator_);
    std::vector<std::string> fields;
    if (has_header) reader.next(fields);
    while (reader.next(fields)) {
      const int64_t line = block.begin.line + reader.begin_line();
      if (fields.size() > names_.size()) {
        bad(line, fmt::format("{} fields, but there are {} columns", fields.size(), names_.size()));
      } else if (!std::all_of(fields.begin(), fields.end(), [](const std::string& field) {
                   return arrow::util::ValidateUTF8(field);
                 })) {
        bad(line, "not UTF-8 text");
      } else {
        row(fields);
      }
    }
  }

  static uint8_t kind_of(std::string_view field, uint8_t known) {
    if (is_missing(field)) return kSawMissing;
    uint8_t kind = kSawValue;
    if (!(known & kNotBool) && !as_bool(field)) kind |= kNotBool;
    if (!(known & kNotInt) && !as_number<int64_t>(field)) kind |= kNotInt;
    if (!(known & kNotDouble) && !as_number<double>(field)) kind |= kNotDouble;
    return kind;
  }

  /// Integers beside missing values are double, as pandas has them.
  static std::shared_ptr<arrow::DataType> type_of(uint8_t kind) {
    if (!(kind & kSawValue)) return arrow::float64();
    if (!(kind & kNotBool)) return arrow::boolean();
    if (!(kind & kNotInt)) return kind & kSawMissing ? arrow::float64() : arrow::int64();
    if (!(kind & kNotDouble)) return arrow::float64();
    return arrow::utf8();
  }

  static arrow::Status append(arrow::ArrayBuilder& builder, std::string_view field) {
    if (is_missing(field)) return builder.AppendNull();
    switch (builder.type()->id()) {
      case arrow::Type::BOOL:
        return static_cast<arrow::BooleanBuilder&>(builder).Append(as_bool(field).value_or(false));
      case arrow::Type::INT64:
        return static_cast<arrow::Int64Builder&>(builder).Append(
            as_number<int64_t>(field).value_or(0));
      case arrow::Type::DOUBLE:
        return static_cast<arrow::DoubleBuilder&>(builder).Append(
            as_number<double>(field).value_or(0));
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
  arrow::util::InitializeUTF8();
  return std::make_unique<CsvFormat>(separator);
}

}  // namespace lorry::data

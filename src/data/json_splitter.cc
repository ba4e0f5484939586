#include "data/json_splitter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace lorry::data {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

enum class Shape { kLines, kArray, kValues };

/// Finds the end of one JSON value by its brackets and quotes alone; the parser judges the rest.
/// Can be fed piece by piece.
class ValueScanner {
 public:
  /// Looks on from `at`; returns the position after the value, or npos if it goes on past the end.
  size_t find_end(std::string_view text, size_t at) {
    for (; at < text.size(); ++at) {
      if (in_string_) {
        at = skip_string(text, at);
        if (at == std::string_view::npos) return at;
        if (depth_ == 0) return at + 1;
        continue;
      }
      switch (text[at]) {
        case '"':
          in_string_ = true;
          break;
        case '{':
        case '[':
          ++depth_;
          break;
        case '}':
        case ']':
          if (depth_ == 0) return at;  // after a scalar: the array's own bracket
          if (--depth_ == 0) return at + 1;
          break;
        case ',':
          if (depth_ == 0) return at;
          break;
        default:
          if (depth_ == 0 && is_space(text[at])) return at;
      }
    }
    return std::string_view::npos;
  }

 private:
  /// The closing quote's position; `at` is inside the string.
  size_t skip_string(std::string_view text, size_t at) {
    for (; at < text.size(); ++at) {
      if (escaped_) {
        escaped_ = false;
      } else if (text[at] == '\\') {
        escaped_ = true;
      } else if (text[at] == '"') {
        in_string_ = false;
        return at;
      }
    }
    return std::string_view::npos;
  }

  int depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
};

class JsonSplitter final : public BlockSplitter {
 public:
  JsonSplitter(const SourceFile& file, Shape shape, Window window, const Place& from,
               int64_t block_bytes)
      : path_(file.path),
        shape_(shape),
        window_(std::move(window)),
        line_(from.line),
        row_(from.row),
        block_bytes_(size_t(std::max<int64_t>(block_bytes, 16))),
        fresh_(from.offset == 0) {}

  Result<std::optional<Block>> next() override {
    LORRY_TRY(window_.fill(block_bytes_));
    if (fresh_) {
      fresh_ = false;
      if (window_.bytes().starts_with(kByteOrderMark)) window_.drop(kByteOrderMark.size());
      if (shape_ == Shape::kArray) LORRY_TRY(enter_array());
    }
    return shape_ == Shape::kLines ? next_lines() : next_values();
  }

 private:
  Result<std::optional<Block>> next_lines() {
    for (size_t want = block_bytes_;; want *= 2) {
      LORRY_TRY(window_.fill(std::min(want, kMaxRowBytes + 1)));
      const std::string_view text = window_.bytes().substr(0, want);
      if (text.empty()) return std::optional<Block>();
      const size_t newline = text.rfind('\n');
      if (newline != std::string_view::npos) return cut(newline + 1, {});
      if (text.size() > kMaxRowBytes) return row_too_long(path_, line_);
      if (window_.at_end() && text.size() == window_.bytes().size()) return cut(text.size(), {});
    }
  }

  Result<std::optional<Block>> next_values() {
    if (closed_) return check_nothing_follows();
    std::vector<std::pair<uint32_t, uint32_t>> rows;
    size_t at = 0;  // after the last whole row and what separates it from the next
    while (true) {
      size_t begin = at;
      bool closes = false;
      LORRY_TRY(skip_separators(begin, row_ + int64_t(rows.size()) > 0, closes));
      if (closes) {
        closed_ = true;
        at = begin + 1;
        break;
      }
      if (begin == window_.bytes().size()) {
        if (window_.at_end()) {
          if (shape_ == Shape::kArray) return cut_short(begin);
          at = begin;
          break;
        }
        if (!rows.empty()) break;
        if (begin > kMaxRowBytes) return row_too_long(path_, line_);
        LORRY_TRY(window_.fill(window_.bytes().size() + block_bytes_));
        continue;
      }
      LORRY_ASSIGN(const size_t end, end_of_value(begin, rows.empty()));
      if (end == std::string_view::npos) break;
      rows.emplace_back(uint32_t(begin), uint32_t(end - begin));
      at = end;
      if (at >= block_bytes_) break;
    }
    if (rows.empty()) {
      if (at > 0) advance_line(at), window_.drop(at);
      return closed_ ? check_nothing_follows() : Result<std::optional<Block>>(std::nullopt);
    }
    return cut(at, std::move(rows));
  }

  /// npos if the value does not end in the window and earlier rows can go first.
  Result<size_t> end_of_value(size_t begin, bool is_first) {
    const char c = window_.bytes()[begin];
    if (shape_ == Shape::kValues && c != '{') {
      return bad_place(begin, "rows must be JSON objects");
    }
    ValueScanner scanner;
    size_t scanned = begin;
    while (true) {
      const size_t end = scanner.find_end(window_.bytes(), scanned);
      if (end != std::string_view::npos) {
        if (end == begin) return bad_place(begin, "a JSON value is missing");
        return end;
      }
      if (window_.at_end()) return cut_short(begin);
      if (!is_first) return std::string_view::npos;
      scanned = window_.bytes().size();
      if (scanned - begin > kMaxRowBytes) return row_too_long(path_, line_at(begin));
      const size_t most = begin + kMaxRowBytes + 1;
      LORRY_TRY(window_.fill(std::min(std::max(scanned * 2, block_bytes_), most)));
    }
  }

  /// `need_comma`: a row lies before `at`.
  Result<> skip_separators(size_t& at, bool need_comma, bool& closes) {
    bool comma = false;
    const std::string_view text = window_.bytes();
    for (; at < text.size(); ++at) {
      const char c = text[at];
      if (is_space(c)) continue;
      if (shape_ != Shape::kArray) return {};
      if (c == ']') {
        if (comma) return bad_place(at, "a JSON value is missing");
        closes = true;
        return {};
      }
      if (!need_comma) return {};
      if (c != ',') return bad_place(at, "a comma is missing between rows");
      need_comma = false;
      comma = true;
    }
    return {};
  }

  Result<std::optional<Block>> check_nothing_follows() {
    while (true) {
      LORRY_TRY(window_.fill(block_bytes_));
      const std::string_view text = window_.bytes();
      const auto other = std::find_if_not(text.begin(), text.end(), is_space);
      if (other != text.end()) {
        return bad_place(size_t(other - text.begin()),
                         *other == '['
                             ? "a second list; a row is an object, as in {\"messages\": [...]}"
                             : "more text after the array's end");
      }
      if (text.empty() && window_.at_end()) return std::optional<Block>();
      advance_line(text.size());
      window_.drop(text.size());
    }
  }

  std::optional<Block> cut(size_t size, std::vector<std::pair<uint32_t, uint32_t>> rows) {
    Block block;
    block.begin = Place{0, window_.offset(), line_, row_};
    block.size = size;
    advance_line(size);
    row_ += int64_t(rows.size());
    block.buffer = window_.take(size);
    block.rows = std::move(rows);
    block.bytes_done = window_.stored_position();
    return block;
  }

  void advance_line(size_t size) {
    const std::string_view text = window_.bytes().substr(0, size);
    line_ += count_lines(text);
  }

  /// Past the spaces and the bracket before the first row.
  Result<> enter_array() {
    while (!window_.bytes().empty()) {
      size_t at = 0;
      while (at < window_.bytes().size() && is_space(window_.bytes()[at])) ++at;
      const bool found = at < window_.bytes().size();
      advance_line(at);
      window_.drop(found ? at + 1 : at);
      LORRY_TRY(window_.fill(block_bytes_));
      if (found) break;
    }
    return {};
  }

  int64_t line_at(size_t at) const {
    const std::string_view text = window_.bytes().substr(0, at);
    return line_ + count_lines(text);
  }
  Error bad_place(size_t at, std::string_view what) const {
    return invalid_input(fmt::format("{}: line {}: {}", path_, line_at(at), what));
  }
  Error cut_short(size_t at) const {
    return corrupt_data(fmt::format(
        "{}: line {}: the file ends inside a row or an array that begins before; is it cut short?",
        path_, line_at(at)));
  }

  std::string path_;
  Shape shape_;
  Window window_;
  int64_t line_;
  int64_t row_;
  size_t block_bytes_;
  bool fresh_;
  bool closed_ = false;
};

/// Whether `line` is a whole JSON value: brackets and quotes close at its end.
bool is_whole_value(std::string_view line) {
  size_t begin = 0;
  while (begin < line.size() && is_space(line[begin])) ++begin;
  ValueScanner scanner;
  const size_t end = scanner.find_end(line, begin);
  if (end == std::string_view::npos) return false;
  return std::all_of(line.begin() + std::ptrdiff_t(end), line.end(), is_space);
}

bool names_lines(const std::string& path) {
  return path.find(".jsonl") != std::string::npos || path.find(".ndjson") != std::string::npos;
}

/// Whether `text` begins with an object over several lines, or with another object on its line: in
/// a file that is named for lines this must be certain, as the first line may also be malformed.
bool begins_with_values(std::string_view text) {
  const size_t end = ValueScanner().find_end(text, 0);
  if (end == std::string_view::npos) return false;
  const size_t next = std::min(text.find_first_not_of(" \t\r\n", end), text.size());
  const bool follows = next == text.size() || text[next] == '{';
  return follows && parse_json(std::string(text.substr(0, end)), "").ok();
}

/// By the window's first bytes; it grows until they tell, and loses nothing.
Result<Shape> shape_of(Window& window, const std::string& path) {
  size_t begin = 0;
  for (size_t want = 1 << 16;; want *= 2) {
    LORRY_TRY(window.fill(want));
    std::string_view text = window.bytes();
    if (text.starts_with(kByteOrderMark)) begin = std::max(begin, kByteOrderMark.size());
    while (begin < text.size() && is_space(text[begin])) ++begin;
    if (begin == text.size()) {
      if (window.at_end() || text.size() > kMaxRowBytes) return Shape::kLines;
      continue;
    }
    if (text[begin] == '[') return Shape::kArray;
    if (text[begin] != '{') return Shape::kLines;
    const size_t newline = text.find('\n', begin);
    // A longer first line is a row, or one of many values on it: its brackets tell soon enough.
    if (newline == std::string_view::npos && !window.at_end() && want < kMaxRowBytes) continue;
    const std::string_view line = text.substr(begin, newline - begin);
    if (is_whole_value(line)) return Shape::kLines;
    if (!names_lines(path)) return Shape::kValues;
    const size_t end = ValueScanner().find_end(text, begin);
    if (end == std::string_view::npos && !window.at_end() && want < kMaxRowBytes) continue;
    return begins_with_values(text.substr(begin)) ? Shape::kValues : Shape::kLines;
  }
}

}  // namespace

Result<std::unique_ptr<BlockSplitter>> split_json(const SourceFile& file, const Place& from,
                                                  int64_t block_bytes) {
  LORRY_ASSIGN(auto source, ByteSource::open(file));
  Window window(std::move(source), 0);
  LORRY_ASSIGN(const Shape shape, shape_of(window, file.path));
  if (from.offset > 0) {
    LORRY_ASSIGN(auto again, ByteSource::open(file));
    LORRY_TRY(again->skip_to(from.offset));
    window = Window(std::move(again), from.offset);
  }
  return std::unique_ptr<BlockSplitter>(
      std::make_unique<JsonSplitter>(file, shape, std::move(window), from, block_bytes));
}

Result<std::optional<Block>> sample_json(const SourceFile& file, int64_t offset, int64_t bytes) {
  if (offset > 0) {
    LORRY_ASSIGN(auto source, ByteSource::open(file));
    if (!source->is_stored_plain() || !names_lines(file.path)) return std::optional<Block>();
    LORRY_TRY(source->skip_to(offset));
    Window window(std::move(source), offset);
    LORRY_TRY(window.fill(size_t(bytes)));
    const std::string_view text = window.bytes();
    const size_t first = text.find('\n'), last = text.rfind('\n');
    if (first == last) return std::optional<Block>();
    // The middle of an object over several lines begins otherwise.
    const size_t second = text.find('\n', first + 1);
    const auto line = text.substr(first + 1, second - first - 1);
    if (!line.starts_with('{') || !is_whole_value(line)) return std::optional<Block>();
    window.drop(first + 1);
    Block block;
    block.size = last - first;
    block.buffer = window.take(block.size);
    return block;
  }
  LORRY_ASSIGN(auto splitter, split_json(file, Place(), bytes));
  return splitter->next();
}

std::vector<std::pair<size_t, size_t>> objects_on_line(std::string_view line) {
  std::vector<std::pair<size_t, size_t>> objects;
  for (size_t at = 0; at < line.size();) {
    if (is_space(line[at])) {
      ++at;
      continue;
    }
    const size_t end = line[at] == '{' ? ValueScanner().find_end(line, at) : std::string_view::npos;
    if (end == std::string_view::npos) return {};
    objects.emplace_back(at, end - at);
    at = end;
  }
  return objects.size() > 1 ? objects : std::vector<std::pair<size_t, size_t>>();
}

}  // namespace lorry::data

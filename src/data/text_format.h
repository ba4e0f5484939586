// What JSON and CSV share: files are cut into blocks of whole rows, in order; blocks are converted
// in parallel. text_reader.cc drives it.
#pragma once

#include <arrow/type_fwd.h>

#include <cstdint>
#include <cstdlib>  // free
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "data/reader.h"
#include "data/source.h"

namespace lorry::data {

/// Readable bytes after a block's end, for parsers that look ahead.
inline constexpr size_t kBlockPadding = 64;
/// No row may be longer: it is held whole, several times over (text, parsed, as columns). A file
/// that was packed from gigabytes of nothing ends here too.
inline constexpr size_t kMaxRowBytes = 64 << 20;
Error row_too_long(const std::string& path, int64_t line);

/// Line breaks in `text`.
int64_t count_lines(std::string_view text);

/// Bytes of malloc: a big one grows in its place.
struct FreeBytes {
  void operator()(char* bytes) const { std::free(bytes); }
};
using Bytes = std::unique_ptr<char[], FreeBytes>;
/// Throws bad_alloc.
Bytes allocate_bytes(size_t size);

/// Whole rows of one file.
struct Block {
  Bytes buffer;  ///< at least kBlockPadding bytes longer than `size`
  size_t size = 0;
  /// Begin and length of each row; empty if a row is a line.
  std::vector<std::pair<uint32_t, uint32_t>> rows;
  Place begin;
  int64_t bytes_done = 0;  ///< of the stored files before this block's end
  const std::string* path = nullptr;

  const char* data() const { return buffer.get(); }
  std::string_view text() const { return {buffer.get(), size}; }
};

class BlockSplitter {
 public:
  virtual ~BlockSplitter() = default;
  /// The next block of the file; nullopt at its end. The caller fills in `begin.file` and `path`.
  virtual Result<std::optional<Block>> next() = 0;
};

/// What was learnt from one block.
struct Observation {
  virtual ~Observation() = default;
  int64_t rows = 0;         ///< without bad ones
  std::vector<BadRow> bad;  ///< without path
};

struct Converted {
  std::shared_ptr<arrow::RecordBatch> rows;  ///< null if some row does not fit the schema
  std::unique_ptr<Observation> seen;
};

/// A schema in the making: what is known of the types of the rows.
class TextFormat {
 public:
  virtual ~TextFormat() = default;
  /// The same format, nothing known.
  virtual std::unique_ptr<TextFormat> fresh() const = 0;
  virtual Result<std::unique_ptr<BlockSplitter>> split(const SourceFile& file, const Place& from,
                                                       int64_t block_bytes) = 0;
  /// A block of about `bytes` from about `offset` bytes into a file, for a guess; nullopt where
  /// rows cannot be told from there.
  virtual Result<std::optional<Block>> sample(const SourceFile& file, int64_t offset,
                                              int64_t bytes) = 0;
  /// Thread-safe.
  virtual std::unique_ptr<Observation> observe(const Block& block) const = 0;
  /// In the order of the blocks.
  virtual Result<> merge(const Observation& observation, const Block& block) = 0;
  /// All that `other` knows.
  virtual void merge(const TextFormat& other) = 0;
  virtual Result<std::shared_ptr<arrow::Schema>> schema() const = 0;
  /// Rows in `schema`, as `schema()` made it. Thread-safe.
  virtual Result<Converted> convert(const Block& block,
                                    const std::shared_ptr<arrow::Schema>& schema) const = 0;
  virtual Json to_json() const = 0;
  virtual Result<> from_json(const Json& json) = 0;
};

std::unique_ptr<TextFormat> make_json_format();
std::unique_ptr<TextFormat> make_csv_format(char separator);
std::unique_ptr<Reader> make_text_reader(std::unique_ptr<TextFormat> format,
                                         std::vector<SourceFile> files, ReadOptions options);
std::unique_ptr<Reader> make_columnar_reader(std::vector<SourceFile> files, ReadOptions options);

/// A file's decompressed bytes in a growing window, for splitters.
class Window {
 public:
  Window(std::unique_ptr<ByteSource> source, int64_t offset)
      : source_(std::move(source)), offset_(offset) {}
  /// Reads on until the window holds `size` bytes or the file ends.
  Result<> fill(size_t size);
  bool at_end() const { return at_end_; }
  std::string_view bytes() const { return {buffer_.get() + begin_, end_ - begin_}; }
  int64_t offset() const { return offset_; }  ///< of the window's first byte in the file
  int64_t stored_position() const { return source_->stored_position(); }
  /// Moves `size` bytes out, as a block's padded bytes.
  Bytes take(size_t size);
  void drop(size_t size);

 private:
  void make_room(size_t size);

  std::unique_ptr<ByteSource> source_;
  Bytes buffer_;
  size_t capacity_ = 0;  ///< without padding
  size_t begin_ = 0, end_ = 0;
  int64_t offset_;
  bool at_end_ = false;
};

}  // namespace lorry::data

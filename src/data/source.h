// What an import reads: the files behind paths, directories and globs, and their formats.
#pragma once

#include <arrow/type_fwd.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace arrow::io {
class InputStream;
class RandomAccessFile;
}  // namespace arrow::io

namespace lorry::data {

/// kArchive: a zip or tar of files of the others; archive.h takes them out.
enum class Format { kJson, kCsv, kTsv, kParquet, kArrow, kArchive };
enum class Compression { kNone, kGzip, kZstd, kBzip2, kXz };

/// "JSON", "CSV", ...
std::string_view format_name(Format format);

/// Opens a file's bytes for ranged reads; thread-safe, and so is ReadAt of what it gives.
using OpenSource = std::function<Result<std::shared_ptr<arrow::io::RandomAccessFile>>()>;

/// A deflated member of a zip archive: what its bytes are, unpacked.
struct ZippedMember {
  int64_t size = 0;
  uint32_t crc32 = 0;
};

struct SourceFile {
  std::string path;  ///< path or URL; its extensions tell format and compression
  Format format = Format::kJson;
  int64_t size = 0;     ///< bytes as stored
  std::string version;  ///< what changes with the bytes: a checksum, ETag, commit
  OpenSource open;
  bool remote = false;                 ///< a read waits for a network: several are kept in flight
  std::optional<ZippedMember> zipped;  ///< set if `open` gives deflated bytes
};

struct FoundFiles {
  std::vector<SourceFile> files;
  /// Files of a directory that were left out, and why, for people.
  std::vector<std::string> notes;
};

/// The files of `sources` in order: a file is itself; a glob (*, ?, [..], ** over directories) or a
/// directory is its files by name, each once, however many links lead to it. A directory stands for
/// one data set: hidden files and files that are no data are passed over; if file names tell a
/// train split from others, it is the train split (as `datasets` takes it); a directory that
/// `save_to_disk` wrote is its data files in order. Fails with not found, or with unsupported for a
/// named file of an unknown extension and for directories that another program lays out
/// (foreign.h), and with invalid input if formats are mixed.
Result<FoundFiles> find_files(const std::vector<std::string>& sources);

/// The format that a file's name tells, compression aside; nullopt for other names.
std::optional<Format> format_of_name(const std::string& name);
/// A local file, its `open` and `version` filled in.
Result<SourceFile> local_file(const std::string& path, Format format);

/// By a file's first bytes, whatever its name says.
Result<Compression> compression_of(std::string_view head, const std::string& path);

/// A file's bytes, decompressed, and as UTF-8 where they are UTF-16 with its byte order mark, read
/// forward in bounded memory.
class ByteSource {
 public:
  static Result<std::unique_ptr<ByteSource>> open(const SourceFile& file);
  ~ByteSource();
  /// Reads up to `size` bytes; 0 at the end. Fails with corrupt data if the file is cut short.
  Result<int64_t> read(char* to, int64_t size);
  /// Neither decompressed nor decoded: a place is as near as any other.
  bool is_stored_plain() const;
  /// Goes to a place in the decompressed bytes, forward only.
  Result<> skip_to(int64_t offset);
  /// Bytes of the stored file that have been read, for progress.
  int64_t stored_position() const;

 private:
  struct Impl;
  explicit ByteSource(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// A file for ranged reads. A compressed one is unpacked to an unnamed temporary file first.
Result<std::shared_ptr<arrow::io::RandomAccessFile>> open_ranged(const SourceFile& file);

}  // namespace lorry::data

// Files as plain bytes: compression found by content, decompressed as a stream.
#include <arrow/buffer.h>
#include <arrow/io/file.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "data/decompress.h"
#include "data/file_names.h"
#include "data/foreign.h"
#include "data/input_stream.h"
#include "data/read_ahead.h"
#include "data/source.h"
#include "data/text_encoding.h"
#include "store/arrow_error.h"

namespace lorry::data {

Result<Compression> compression_of(std::string_view head, const std::string& path) {
  if (head.starts_with("\x1f\x8b")) return Compression::kGzip;
  if (head.starts_with("\x28\xb5\x2f\xfd")) return Compression::kZstd;
  if (head.starts_with("BZh")) return Compression::kBzip2;
  if (head.starts_with(std::string_view("\xFD"
                                        "7zXZ\0",
                                        6)))
    return Compression::kXz;
  const std::string extension = std::filesystem::path(path).extension().string();
  if (extension == ".lzma") return Compression::kXz;
  if (!head.empty() && without_compression(path) != path) {
    return corrupt_data(fmt::format("{}: does not begin as a {} file does", path, extension));
  }
  return Compression::kNone;
}

namespace {

/// A file's first bytes; fails if it is plainly no data.
Result<std::string> first_bytes(arrow::io::RandomAccessFile& file, const SourceFile& source) {
  std::string head(size_t(kContentBytes), '\0');
  LORRY_ASSIGN(const int64_t size, store::from_arrow(file.GetSize(), source.path));
  LORRY_ASSIGN(
      const int64_t got,
      store::from_arrow(file.ReadAt(0, std::min(size, kContentBytes), head.data()), source.path));
  head.resize(size_t(got));
  if (!source.zipped) LORRY_TRY(refuse_foreign_content(source, head));
  return head;
}

/// A file's stored bytes from a place on, as a stream that knows where it is.
class StoredBytes final : public ForwardStream {
 public:
  StoredBytes(std::shared_ptr<arrow::io::RandomAccessFile> file, bool remote)
      : file_(std::move(file)), remote_(remote) {}
  void move_to(int64_t position) {
    set_position(position);
    ahead_.reset();
  }
  /// The last read failed: what was to be decompressed is not to blame.
  bool failed() const { return failed_; }

  using ForwardStream::Read;
  arrow::Result<int64_t> Read(int64_t bytes, void* out) override {
    if (remote_ && !ahead_) ahead_ = read_ahead(file_, position());
    auto got = ahead_ ? ahead_->Read(bytes, out) : file_->ReadAt(position(), bytes, out);
    failed_ = !got.ok();
    if (got.ok()) advance(*got);
    return got;
  }
  arrow::Status Close() override {
    ahead_.reset();
    return ForwardStream::Close();
  }

 private:
  std::shared_ptr<arrow::io::RandomAccessFile> file_;
  bool remote_;
  bool failed_ = false;
  std::shared_ptr<arrow::io::InputStream> ahead_;
};

}  // namespace

struct ByteSource::Impl {
  std::string path;
  std::shared_ptr<StoredBytes> stored;
  std::shared_ptr<arrow::io::InputStream> bytes;  ///< `stored`, or what unpacks it
  bool unpacked = false;                          ///< decompressed, or decoded
  int64_t position = 0;                           ///< in `bytes`
};

ByteSource::ByteSource(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ByteSource::~ByteSource() = default;

Result<std::unique_ptr<ByteSource>> ByteSource::open(const SourceFile& source) {
  const std::string& path = source.path;
  LORRY_ASSIGN(auto file, source.open());
  LORRY_ASSIGN(const std::string head, first_bytes(*file, source));
  Compression compression = Compression::kNone;
  if (!source.zipped) {
    LORRY_ASSIGN(compression, compression_of(head, path));
  }
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->stored = std::make_shared<StoredBytes>(std::move(file), source.remote);
  impl->bytes = impl->stored;
  const bool compressed = source.zipped || compression != Compression::kNone;
  if (compressed) {
    LORRY_ASSIGN(impl->bytes,
                 store::from_arrow(source.zipped ? inflate(*source.zipped, impl->stored)
                                                 : decompress(compression, impl->stored),
                                   path));
  }
  impl->unpacked = compressed || is_utf16(head);
  if (impl->unpacked) impl->bytes = as_utf8(std::move(impl->bytes));
  return std::unique_ptr<ByteSource>(new ByteSource(std::move(impl)));
}

Result<int64_t> ByteSource::read(char* to, int64_t size) {
  auto got = impl_->bytes->Read(size, to);
  if (!got.ok()) {
    const std::string reason = store::arrow_reason(got.status());
    if (!impl_->unpacked || impl_->stored->failed()) {
      return store::from_arrow(got.status(), impl_->path);
    }
    return corrupt_data(
        fmt::format("{}: cannot be unpacked past byte {}, cut short or damaged ({})", impl_->path,
                    impl_->position, reason));
  }
  impl_->position += *got;
  return *got;
}

bool ByteSource::is_stored_plain() const { return !impl_->unpacked; }

Result<> ByteSource::skip_to(int64_t offset) {
  if (!impl_->unpacked) {
    impl_->stored->move_to(offset);
    impl_->position = offset;
    return {};
  }
  std::string scrap(size_t(1) << 20, '\0');
  while (impl_->position < offset) {
    const int64_t want = std::min<int64_t>(int64_t(scrap.size()), offset - impl_->position);
    LORRY_ASSIGN(const int64_t got, read(scrap.data(), want));
    if (got == 0) return corrupt_data(fmt::format("{}: shorter than before", impl_->path));
  }
  return {};
}

int64_t ByteSource::stored_position() const { return impl_->stored->position(); }

Result<std::shared_ptr<arrow::io::RandomAccessFile>> open_ranged(const SourceFile& source) {
  const std::string& path = source.path;
  LORRY_ASSIGN(auto stored, source.open());
  LORRY_ASSIGN(const std::string head, first_bytes(*stored, source));
  if (!source.zipped) {
    LORRY_ASSIGN(const Compression compression, compression_of(head, path));
    if (compression == Compression::kNone) return stored;
  }
  std::string name = (std::filesystem::temp_directory_path() / "lorry-XXXXXX").string();
  const int fd = ::mkstemp(name.data());
  if (fd < 0) {
    return unavailable(fmt::format("{}: no temporary file to unpack it into ({})", path, name));
  }
  ::unlink(name.c_str());
  // Owns the descriptor from here on.
  auto unpacked = arrow::io::ReadableFile::Open(fd);
  if (!unpacked.ok()) {
    ::close(fd);
    return store::from_arrow(unpacked.status(), path);
  }
  LORRY_ASSIGN(auto bytes, ByteSource::open(source));
  std::string block(size_t(4) << 20, '\0');
  while (true) {
    LORRY_ASSIGN(const int64_t got, bytes->read(block.data(), int64_t(block.size())));
    if (got == 0) break;
    for (int64_t at = 0; at < got;) {
      const ssize_t wrote = ::write(fd, block.data() + at, size_t(got - at));
      if (wrote < 0) {
        return unavailable(fmt::format("{}: cannot unpack it into {}; is that disk full?", path,
                                       std::filesystem::temp_directory_path().string()));
      }
      at += wrote;
    }
  }
  // Opened anew: its size was 0 when it was opened.
  const int again = ::dup(fd);
  LORRY_ASSIGN(auto file, store::from_arrow(arrow::io::ReadableFile::Open(again), path));
  return std::shared_ptr<arrow::io::RandomAccessFile>(std::move(file));
}

}  // namespace lorry::data

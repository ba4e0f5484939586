// Files as plain bytes: compression found by content, decompressed as a stream.
#include <arrow/buffer.h>
#include <arrow/io/compressed.h>
#include <arrow/io/file.h>
#include <arrow/util/compression.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "data/source.h"
#include "store/arrow_error.h"

namespace lorry::data {

Result<Compression> detect_compression(const std::string& path) {
  LORRY_ASSIGN(auto file, store::from_arrow(arrow::io::ReadableFile::Open(path), path));
  unsigned char head[4] = {};
  LORRY_ASSIGN(const int64_t got, store::from_arrow(file->Read(4, head), path));
  if (got >= 2 && head[0] == 0x1f && head[1] == 0x8b) return Compression::kGzip;
  if (got == 4 && head[0] == 0x28 && head[1] == 0xb5 && head[2] == 0x2f && head[3] == 0xfd) {
    return Compression::kZstd;
  }
  const std::string extension = std::filesystem::path(path).extension().string();
  if (got > 0 && (extension == ".gz" || extension == ".zst")) {
    return corrupt_data(fmt::format("{}: does not begin as a {} file does", path, extension));
  }
  return Compression::kNone;
}

struct ByteSource::Impl {
  std::string path;
  std::shared_ptr<arrow::io::ReadableFile> file;
  std::shared_ptr<arrow::io::InputStream> bytes;  ///< `file`, or what decompresses it
  bool compressed = false;
  int64_t position = 0;  ///< in the decompressed bytes
};

ByteSource::ByteSource(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ByteSource::~ByteSource() = default;

Result<std::unique_ptr<ByteSource>> ByteSource::open(const std::string& path) {
  LORRY_ASSIGN(const Compression compression, detect_compression(path));
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  LORRY_ASSIGN(impl->file, store::from_arrow(arrow::io::ReadableFile::Open(path), path));
  impl->bytes = impl->file;
  if (compression != Compression::kNone) {
    const auto kind =
        compression == Compression::kGzip ? arrow::Compression::GZIP : arrow::Compression::ZSTD;
    LORRY_ASSIGN(std::shared_ptr<arrow::util::Codec> codec,
                 store::from_arrow(arrow::util::Codec::Create(kind), path));
    LORRY_ASSIGN(
        impl->bytes,
        store::from_arrow(arrow::io::CompressedInputStream::Make(codec.get(), impl->file), path));
    impl->compressed = true;
  }
  return std::unique_ptr<ByteSource>(new ByteSource(std::move(impl)));
}

Result<int64_t> ByteSource::read(char* to, int64_t size) {
  auto got = impl_->bytes->Read(size, to);
  if (!got.ok()) {
    const std::string reason = store::arrow_reason(got.status());
    if (!impl_->compressed) return unavailable(fmt::format("{}: {}", impl_->path, reason));
    return corrupt_data(
        fmt::format("{}: cannot be decompressed past byte {}, cut short or damaged ({})",
                    impl_->path, impl_->position, reason));
  }
  impl_->position += *got;
  return *got;
}

Result<> ByteSource::skip_to(int64_t offset) {
  if (!impl_->compressed) {
    LORRY_ARROW_TRY(impl_->file->Seek(offset), impl_->path);
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

int64_t ByteSource::stored_position() const {
  auto at = impl_->file->Tell();
  return at.ok() ? *at : 0;
}

Result<std::shared_ptr<arrow::io::RandomAccessFile>> open_ranged(const std::string& path) {
  LORRY_ASSIGN(const Compression compression, detect_compression(path));
  if (compression == Compression::kNone) {
    LORRY_ASSIGN(auto file, store::from_arrow(arrow::io::ReadableFile::Open(path), path));
    return std::shared_ptr<arrow::io::RandomAccessFile>(std::move(file));
  }
  std::string name = (std::filesystem::temp_directory_path() / "lorry-XXXXXX").string();
  const int fd = ::mkstemp(name.data());
  if (fd < 0) {
    return unavailable(fmt::format("{}: no temporary file to unpack it into ({})", path, name));
  }
  ::unlink(name.c_str());
  LORRY_ASSIGN(auto bytes, ByteSource::open(path));
  std::string block(size_t(4) << 20, '\0');
  while (true) {
    auto got = bytes->read(block.data(), int64_t(block.size()));
    if (!got.ok()) {
      ::close(fd);
      return std::move(got).error();
    }
    if (*got == 0) break;
    for (int64_t at = 0; at < *got;) {
      const ssize_t wrote = ::write(fd, block.data() + at, size_t(*got - at));
      if (wrote < 0) {
        ::close(fd);
        return unavailable(fmt::format("{}: cannot unpack it into {}; is that disk full?", path,
                                       std::filesystem::temp_directory_path().string()));
      }
      at += wrote;
    }
  }
  LORRY_ASSIGN(auto file, store::from_arrow(arrow::io::ReadableFile::Open(fd), path));
  return std::shared_ptr<arrow::io::RandomAccessFile>(std::move(file));
}

}  // namespace lorry::data

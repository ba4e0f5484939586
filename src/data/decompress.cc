#include "data/decompress.h"

#include <arrow/io/compressed.h>
#include <arrow/util/compression.h>
#include <lzma.h>
#include <zlib.h>  // crc32

#include <vector>

#include "data/input_stream.h"

namespace lorry::data {
namespace {

/// .xz and the older .lzma. A decoder's dictionary may take 64 MB (xz -9), not more than 1 GB.
class XzStream final : public ForwardStream {
 public:
  explicit XzStream(std::shared_ptr<arrow::io::InputStream> stored)
      : stored_(std::move(stored)), input_(kPiece) {}
  ~XzStream() override { lzma_end(&stream_); }

  arrow::Status begin() {
    constexpr uint64_t kMostMemory = uint64_t(1) << 30;
    const auto begun = lzma_auto_decoder(&stream_, kMostMemory, LZMA_CONCATENATED);
    return begun == LZMA_OK ? arrow::Status::OK() : arrow::Status::OutOfMemory("no xz decoder");
  }

  using ForwardStream::Read;
  arrow::Result<int64_t> Read(int64_t size, void* out) override {
    stream_.next_out = static_cast<uint8_t*>(out);
    stream_.avail_out = size_t(size);
    while (stream_.avail_out > 0 && !ended_) {
      if (stream_.avail_in == 0 && !input_ended_) ARROW_RETURN_NOT_OK(read_on());
      const auto done = lzma_code(&stream_, input_ended_ ? LZMA_FINISH : LZMA_RUN);
      ended_ = done == LZMA_STREAM_END;
      if (done == LZMA_OK || ended_) continue;
      return arrow::Status::IOError(done == LZMA_MEMLIMIT_ERROR
                                        ? "its dictionary takes more than 1 GB"
                                        : "not a whole xz stream");
    }
    return advance(size - int64_t(stream_.avail_out));
  }

 private:
  static constexpr size_t kPiece = 1 << 16;

  arrow::Status read_on() {
    ARROW_ASSIGN_OR_RAISE(const int64_t got, stored_->Read(int64_t(kPiece), input_.data()));
    stream_.next_in = input_.data();
    stream_.avail_in = size_t(got);
    input_ended_ = got == 0;
    return arrow::Status::OK();
  }

  std::shared_ptr<arrow::io::InputStream> stored_;
  std::vector<uint8_t> input_;
  lzma_stream stream_ = LZMA_STREAM_INIT;
  bool input_ended_ = false, ended_ = false;
};

class CheckedStream final : public ForwardStream {
 public:
  CheckedStream(const ZippedMember& member, std::shared_ptr<arrow::io::InputStream> bytes)
      : member_(member), bytes_(std::move(bytes)) {}

  using ForwardStream::Read;
  arrow::Result<int64_t> Read(int64_t size, void* out) override {
    ARROW_ASSIGN_OR_RAISE(const int64_t got, bytes_->Read(size, out));
    crc_ = uint32_t(::crc32_z(crc_, static_cast<const Bytef*>(out), size_t(got)));
    ARROW_ASSIGN_OR_RAISE(const int64_t before, Tell());
    const bool ends = size > 0 && got == 0;
    if (ends && (before != member_.size || crc_ != member_.crc32)) {
      return arrow::Status::IOError("another size or checksum than the archive says");
    }
    return advance(got);
  }

 private:
  const ZippedMember member_;
  std::shared_ptr<arrow::io::InputStream> bytes_;
  uint32_t crc_ = 0;
};

arrow::Result<std::shared_ptr<arrow::io::InputStream>> by_codec(
    arrow::Result<std::unique_ptr<arrow::util::Codec>> made,
    std::shared_ptr<arrow::io::InputStream> stored) {
  ARROW_ASSIGN_OR_RAISE(const auto codec, std::move(made));
  ARROW_ASSIGN_OR_RAISE(auto stream,
                        arrow::io::CompressedInputStream::Make(codec.get(), std::move(stored)));
  return std::shared_ptr<arrow::io::InputStream>(std::move(stream));
}

}  // namespace

arrow::Result<std::shared_ptr<arrow::io::InputStream>> decompress(
    Compression compression, std::shared_ptr<arrow::io::InputStream> stored) {
  using arrow::util::Codec;
  switch (compression) {
    case Compression::kNone:
      return stored;
    case Compression::kGzip:
      return by_codec(Codec::Create(arrow::Compression::GZIP), std::move(stored));
    case Compression::kZstd:
      return by_codec(Codec::Create(arrow::Compression::ZSTD), std::move(stored));
    case Compression::kBzip2:
      return by_codec(Codec::Create(arrow::Compression::BZ2), std::move(stored));
    case Compression::kXz:
      break;
  }
  auto xz = std::make_shared<XzStream>(std::move(stored));
  ARROW_RETURN_NOT_OK(xz->begin());
  return std::shared_ptr<arrow::io::InputStream>(std::move(xz));
}

arrow::Result<std::shared_ptr<arrow::io::InputStream>> inflate(
    const ZippedMember& member, std::shared_ptr<arrow::io::InputStream> stored) {
  arrow::util::GZipCodecOptions raw;
  raw.gzip_format = arrow::util::GZipFormat::DEFLATE;
  ARROW_ASSIGN_OR_RAISE(
      auto bytes,
      by_codec(arrow::util::Codec::Create(arrow::Compression::GZIP, raw), std::move(stored)));
  return std::shared_ptr<arrow::io::InputStream>(
      std::make_shared<CheckedStream>(member, std::move(bytes)));
}

}  // namespace lorry::data

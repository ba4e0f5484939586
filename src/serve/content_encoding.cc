#include "serve/content_encoding.h"

#include <arrow/util/compression.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <memory>
#include <optional>
#include <vector>

namespace lorry::serve {
namespace {

using arrow::util::GZipFormat;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

/// The header's codings in the order in which they were applied.
std::vector<std::string> codings_of(std::string_view header) {
  std::vector<std::string> out;
  while (!header.empty()) {
    const size_t comma = std::min(header.find(','), header.size());
    std::string_view one = header.substr(0, comma);
    header.remove_prefix(std::min(comma + 1, header.size()));
    const auto is_space = [](char c) { return c == ' ' || c == '\t'; };
    while (!one.empty() && is_space(one.front())) one.remove_prefix(1);
    while (!one.empty() && is_space(one.back())) one.remove_suffix(1);
    if (!one.empty() && lower(one) != "identity") out.push_back(lower(one));
  }
  return out;
}

/// Whether "deflate" has the header of zlib, which the standard asks for and some leave out.
bool has_zlib_header(std::string_view body) {
  if (body.size() < 2) return false;
  const auto first = static_cast<uint8_t>(body[0]), second = static_cast<uint8_t>(body[1]);
  return (first & 0x0f) == 8 && (first * 256 + second) % 31 == 0;
}

/// nullptr for a coding that is not known.
std::unique_ptr<arrow::util::Codec> codec_of(const std::string& coding, std::string_view body) {
  const auto zlib = [](GZipFormat format) {
    arrow::util::GZipCodecOptions options;
    options.gzip_format = format;
    return arrow::util::Codec::Create(arrow::Compression::GZIP, options).ValueOr(nullptr);
  };
  if (coding == "gzip" || coding == "x-gzip") return zlib(GZipFormat::GZIP);
  if (coding == "deflate")
    return zlib(has_zlib_header(body) ? GZipFormat::ZLIB : GZipFormat::DEFLATE);
  if (coding != "zstd") return nullptr;
  return arrow::util::Codec::Create(arrow::Compression::ZSTD).ValueOr(nullptr);
}

BodyError broken(const std::string& coding) {
  return {400, fmt::format("the request's body is not {}, as its Content-Encoding says", coding)};
}

std::variant<std::string, BodyError> decompress(arrow::util::Codec& codec,
                                                const std::string& coding, std::string_view body,
                                                uint64_t limit) {
  auto made = codec.MakeDecompressor();
  if (!made.ok()) return BodyError{500, "out of memory"};
  const auto decompressor = *made;
  std::string out, piece(64 << 10, '\0');
  const auto* in = reinterpret_cast<const uint8_t*>(body.data());
  size_t at = 0;
  while (at < body.size() || !decompressor->IsFinished()) {
    // Members may follow one another.
    if (decompressor->IsFinished() && !decompressor->Reset().ok()) return broken(coding);
    const auto step = decompressor->Decompress(static_cast<int64_t>(body.size() - at), in + at,
                                               static_cast<int64_t>(piece.size()),
                                               reinterpret_cast<uint8_t*>(piece.data()));
    if (!step.ok()) return broken(coding);
    at += static_cast<size_t>(step->bytes_read);
    out.append(piece, 0, static_cast<size_t>(step->bytes_written));
    if (out.size() > limit)
      return BodyError{413, fmt::format("the request's body is larger than the limit of {} bytes "
                                        "once it is decompressed",
                                        limit)};
    const bool stuck = step->bytes_read == 0 && step->bytes_written == 0;
    if (stuck && !decompressor->IsFinished()) return broken(coding);  // its end is missing
  }
  return out;
}

}  // namespace

std::variant<std::string, BodyError> decode_body(std::string_view encoding, std::string body,
                                                 uint64_t limit) {
  constexpr size_t kMostCodings = 4;
  const auto codings = codings_of(encoding);
  if (codings.size() > kMostCodings)
    return BodyError{415, "the request's body is encoded more than four times over"};
  for (auto coding = codings.rbegin(); coding != codings.rend(); ++coding) {
    const auto codec = codec_of(*coding, body);
    if (!codec)
      return BodyError{415, fmt::format("the request's Content-Encoding '{}' is not supported; {} "
                                        "are, and a body without one",
                                        *coding, kContentCodings)};
    auto decoded = decompress(*codec, *coding, body, limit);
    if (auto* text = std::get_if<std::string>(&decoded)) {
      body = std::move(*text);
    } else {
      return decoded;
    }
  }
  return body;
}

}  // namespace lorry::serve

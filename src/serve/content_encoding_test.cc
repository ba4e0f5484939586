#include "serve/content_encoding.h"

#include <arrow/util/compression.h>
#include <gtest/gtest.h>

namespace lorry::serve {
namespace {

using arrow::util::GZipFormat;

std::string compressed(arrow::util::Codec& codec, const std::string& text) {
  const auto* in = reinterpret_cast<const uint8_t*>(text.data());
  const auto size = static_cast<int64_t>(text.size());
  std::string out(static_cast<size_t>(codec.MaxCompressedLen(size, in)), '\0');
  const auto written = codec.Compress(size, in, static_cast<int64_t>(out.size()),
                                      reinterpret_cast<uint8_t*>(out.data()));
  out.resize(static_cast<size_t>(*written));
  return out;
}

std::string zlib(GZipFormat format, const std::string& text) {
  arrow::util::GZipCodecOptions options;
  options.gzip_format = format;
  return compressed(**arrow::util::Codec::Create(arrow::Compression::GZIP, options), text);
}
std::string gzip(const std::string& text) { return zlib(GZipFormat::GZIP, text); }
std::string zstd(const std::string& text) {
  return compressed(**arrow::util::Codec::Create(arrow::Compression::ZSTD), text);
}

std::string decoded(std::string_view encoding, std::string body, uint64_t limit = 1 << 20) {
  const auto out = decode_body(encoding, std::move(body), limit);
  if (const auto* error = std::get_if<BodyError>(&out))
    return std::to_string(error->status) + ": " + error->message;
  return std::get<std::string>(out);
}

const std::string kText = R"({"messages": [{"role": "user", "content": "hi"}]})";

TEST(ContentEncoding, EveryCodingOfTheListIsUndone) {
  EXPECT_EQ(decoded("gzip", gzip(kText)), kText);
  EXPECT_EQ(decoded("X-GZip", gzip(kText)), kText);
  EXPECT_EQ(decoded("zstd", zstd(kText)), kText);
  EXPECT_EQ(decoded("deflate", zlib(GZipFormat::ZLIB, kText)), kText);
  EXPECT_EQ(decoded("deflate", zlib(GZipFormat::DEFLATE, kText)), kText);
  EXPECT_EQ(decoded("identity", kText), kText);
  EXPECT_EQ(decoded("zstd, gzip", gzip(zstd(kText))), kText);
  EXPECT_EQ(decoded("gzip", gzip("{\"a\"") + gzip(": 1}")), "{\"a\": 1}");
  const std::string large(300'000, 'x');
  EXPECT_EQ(decoded("zstd", zstd(large)), large);
}

TEST(ContentEncoding, AnUnknownOneIsRefusedWithThoseThatWork) {
  const std::string answer = decoded("br", kText);
  EXPECT_TRUE(answer.starts_with("415")) << answer;
  EXPECT_NE(answer.find("'br' is not supported; gzip, deflate, zstd are"), answer.npos) << answer;
  EXPECT_TRUE(decoded("gzip,gzip,gzip,gzip,gzip", kText).starts_with("415"));
}

TEST(ContentEncoding, ABodyThatGrowsBeyondTheLimitIsRefused) {
  const std::string zeros(64 << 20, '\0');
  for (const auto& [encoding, body] :
       {std::pair("gzip", gzip(zeros)), std::pair("zstd", zstd(zeros))}) {
    EXPECT_LT(body.size(), 1u << 20);
    EXPECT_TRUE(decoded(encoding, body).starts_with("413")) << encoding;
  }
}

TEST(ContentEncoding, ABrokenBodyIsRefused) {
  EXPECT_TRUE(decoded("gzip", kText).starts_with("400"));
  EXPECT_TRUE(decoded("zstd", kText).starts_with("400"));
  EXPECT_TRUE(decoded("gzip", gzip(kText).substr(0, 20)).starts_with("400"));
  EXPECT_TRUE(decoded("zstd", zstd(kText).substr(0, 20)).starts_with("400"));
  EXPECT_TRUE(decoded("gzip", "").starts_with("400"));
  EXPECT_TRUE(decoded("gzip", gzip(kText) + "more").starts_with("400"));
}

}  // namespace
}  // namespace lorry::serve

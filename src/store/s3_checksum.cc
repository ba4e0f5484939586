#include "store/s3_checksum.h"

#include <zlib.h>  // crc32

#include <array>

#include "base/crc32c.h"
#include "base/digest.h"

namespace lorry::store {
namespace {

constexpr uint64_t kNvmePolynomial = 0x9a6c9329ac4bc9b5;  // reflected

constexpr std::array<std::array<uint64_t, 256>, 8> make_tables() {
  std::array<std::array<uint64_t, 256>, 8> tables{};
  for (uint64_t b = 0; b < 256; ++b) {
    uint64_t crc = b;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? kNvmePolynomial : 0);
    tables[0][b] = crc;
  }
  for (size_t b = 0; b < 256; ++b) {
    for (size_t k = 1; k < 8; ++k) {
      tables[k][b] = (tables[k - 1][b] >> 8) ^ tables[0][tables[k - 1][b] & 0xff];
    }
  }
  return tables;
}
constexpr auto kTables = make_tables();

template <typename Number>
std::string big_endian(Number value) {
  std::string bytes(sizeof(Number), '\0');
  for (size_t i = sizeof(Number); i-- > 0; value >>= 8) bytes[i] = char(value & 0xff);
  return bytes;
}

std::string sha256_bytes(std::string_view body) {
  const std::string hex = sha256_hex(body);
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes += char(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

uint32_t crc32_of(std::string_view body) {
  return uint32_t(::crc32_z(0, reinterpret_cast<const Bytef*>(body.data()), body.size()));
}

}  // namespace

std::string base64(std::string_view bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) group = group << 8 | (k < n ? uint8_t(bytes[i + k]) : 0);
    for (size_t k = 0; k < 4; ++k) text += k <= n ? kDigits[group >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

std::string base64_crc(uint32_t crc) { return base64(big_endian(crc)); }

uint64_t crc64nvme(std::string_view bytes) {
  uint64_t crc = ~uint64_t{0};
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    for (size_t k = 0; k < 8; ++k) crc ^= uint64_t(uint8_t(bytes[i + k])) << (8 * k);
    uint64_t next = 0;
    for (size_t k = 0; k < 8; ++k) next ^= kTables[7 - k][crc >> (8 * k) & 0xff];
    crc = next;
  }
  for (; i < bytes.size(); ++i) crc = (crc >> 8) ^ kTables[0][(crc ^ uint8_t(bytes[i])) & 0xff];
  return ~crc;
}

std::optional<std::string> wrong_checksum(const net::Response& response, std::string_view body) {
  const auto differs = [&](const char* name, auto digest) {
    const auto sent = response.header(name);
    // "abc=-3" is a checksum of the checksums of three parts.
    if (!sent || sent->empty() || sent->find('-') != std::string_view::npos) return false;
    return *sent != digest();
  };
  const bool wrong =
      differs("x-amz-checksum-crc32c", [&] { return base64_crc(crc32c(body)); }) ||
      differs("x-amz-checksum-crc32", [&] { return base64_crc(crc32_of(body)); }) ||
      differs("x-amz-checksum-crc64nvme", [&] { return base64(big_endian(crc64nvme(body))); }) ||
      differs("x-amz-checksum-sha256", [&] { return base64(sha256_bytes(body)); });
  if (!wrong) return std::nullopt;
  return "its bytes do not have the checksum that the store keeps";
}

}  // namespace lorry::store

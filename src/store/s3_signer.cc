#include "store/s3_signer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "base/digest.h"

namespace lorry::store {
namespace {

std::string from_hex(std::string_view hex) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes += char(digit(hex[i]) * 16 + digit(hex[i + 1]));
  return bytes;
}

std::string to_hex(std::string_view bytes) {
  std::string hex;
  for (const char byte : bytes)
    hex += {"0123456789abcdef"[uint8_t(byte) >> 4], "0123456789abcdef"[uint8_t(byte) & 15]};
  return hex;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return char(std::tolower(c)); });
  return text;
}

/// "20130524T000000Z".
std::string amz_date(std::time_t now) {
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[32];
  const size_t size = std::strftime(text, sizeof(text), "%Y%m%dT%H%M%SZ", &utc);
  return std::string(text, size);
}

}  // namespace

std::string hmac_sha256(std::string_view key, std::string_view message) {
  constexpr size_t kBlock = 64;
  std::string block = key.size() > kBlock ? from_hex(sha256_hex(key)) : std::string(key);
  block.resize(kBlock, '\0');
  std::string inner = block, outer = block;
  for (char& c : inner) c ^= 0x36;
  for (char& c : outer) c ^= 0x5c;
  inner += message;
  outer += from_hex(sha256_hex(inner));
  return from_hex(sha256_hex(outer));
}

std::string canonical_query(const Query& query) {
  std::vector<std::pair<std::string, std::string>> encoded;
  for (const auto& [name, value] : query) {
    encoded.emplace_back(net::url_encode(name), net::url_encode(value));
  }
  std::sort(encoded.begin(), encoded.end());
  std::string text;
  for (const auto& [name, value] : encoded) {
    if (!text.empty()) text += '&';
    text += name + "=" + value;
  }
  return text;
}

std::string S3Signer::signing_key(const Credentials& credentials, const std::string& region,
                                  const std::string& day, const std::string& service) {
  std::lock_guard lock(mutex_);
  const std::string made_of = credentials.secret_key + "\n" + region + "\n" + day + "\n" + service;
  if (made_of == key_for_) return key_;
  key_ = hmac_sha256("AWS4" + credentials.secret_key, day);
  for (const std::string& part : {region, service, std::string("aws4_request")}) {
    key_ = hmac_sha256(key_, part);
  }
  key_for_ = made_of;
  return key_;
}

void S3Signer::sign(const ToSign& request, const Credentials& credentials,
                    const std::string& region, std::time_t now, net::Headers& headers) {
  const std::string date = amz_date(now), day = date.substr(0, 8);
  headers.emplace_back("Host", request.host);
  headers.emplace_back("x-amz-date", date);
  headers.emplace_back("x-amz-content-sha256", request.payload_hash);
  if (!credentials.token.empty()) headers.emplace_back("x-amz-security-token", credentials.token);

  std::vector<std::pair<std::string, std::string>> sorted;
  for (const auto& [name, value] : headers) sorted.emplace_back(lower(name), value);
  std::sort(sorted.begin(), sorted.end());
  std::string names, lines;
  for (const auto& [name, value] : sorted) {
    if (!names.empty()) names += ';';
    names += name;
    lines += name + ":" + value + "\n";
  }
  const std::string canonical = fmt::format("{}\n{}\n{}\n{}\n{}\n{}", request.method, request.path,
                                            request.query, lines, names, request.payload_hash);
  const std::string scope = fmt::format("{}/{}/{}/aws4_request", day, region, request.service);
  const std::string to_sign =
      fmt::format("AWS4-HMAC-SHA256\n{}\n{}\n{}", date, scope, sha256_hex(canonical));
  const std::string signature =
      to_hex(hmac_sha256(signing_key(credentials, region, day, request.service), to_sign));
  headers.emplace_back(
      "Authorization",
      fmt::format("AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={}",
                  credentials.access_key, scope, names, signature));
}

}  // namespace lorry::store

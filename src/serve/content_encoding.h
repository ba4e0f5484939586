// Bodies that a client has compressed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

namespace lorry::serve {

/// A body that cannot be taken, as HTTP says it.
struct BodyError {
  int status = 400;
  std::string message;
};

/// The codings that `decode_body` knows, as a header lists them.
inline constexpr std::string_view kContentCodings = "gzip, deflate, zstd";

/// The body without the codings of its Content-Encoding header ("gzip", "zstd, gzip"; empty: none).
/// 415 for one that is not known, 413 once the body takes more than `limit` bytes, so that a small
/// one that grows without end costs no more than that, 400 for one that is broken.
/// Source: RFC 9110, sections 8.4 and 15.5.16.
std::variant<std::string, BodyError> decode_body(std::string_view encoding, std::string body,
                                                 uint64_t limit);

}  // namespace lorry::serve

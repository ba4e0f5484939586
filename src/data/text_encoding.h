// Text that is not UTF-8.
#pragma once

#include <arrow/io/interfaces.h>

#include <memory>
#include <string>
#include <string_view>

namespace lorry::data {

/// Whether text begins with the byte order mark of UTF-16, which Windows' programs write.
bool is_utf16(std::string_view head);

/// Text of UTF-16 with its byte order mark as UTF-8 without it; any other bytes as they are.
/// Unpaired surrogates and half a unit at the end are an error.
std::shared_ptr<arrow::io::InputStream> as_utf8(std::shared_ptr<arrow::io::InputStream> bytes);

}  // namespace lorry::data

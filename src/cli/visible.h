// Text of others for a terminal: nothing in it moves the cursor, sets a title or turns the line.
#pragma once

#include <string>
#include <string_view>

namespace lorry::cli {

/// Control characters and those that change the direction of writing as escapes (`\n`, `\x1b`,
/// `\u202e`), bytes that are not UTF-8 as <0xE4>. `keep_lines`: line breaks and tabs stay.
std::string visible(std::string_view bytes, bool keep_lines = false);

/// Bytes that are not UTF-8 as <0xE4>, all else as it is.
std::string with_named_bytes(std::string_view bytes);

}  // namespace lorry::cli

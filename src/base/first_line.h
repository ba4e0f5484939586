// What of another library's message is for users.
#pragma once

#include <string_view>

namespace lorry {

/// libtorch and Arrow append a stack to their messages: the first line says it all. A view of
/// `message`.
inline std::string_view first_line(std::string_view message) {
  return message.substr(0, message.find('\n'));
}

}  // namespace lorry

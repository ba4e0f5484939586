// Text inside HTML.
#pragma once

#include <string>
#include <string_view>

namespace lorry {

/// `& < > ' "` as entities, spelled as Python's markupsafe spells them (chat templates print them).
std::string escape_html(std::string_view text);

}  // namespace lorry

// Path patterns as `datasets` and the Hub's clients read them.
#pragma once

#include <string>
#include <string_view>

namespace lorry::hub {

/// Whether `pattern` has a *, ? or [.
bool has_magic(std::string_view pattern);

/// Matches a whole path: `*`, `?` and `[...]` (`[!...]`: none of) within a part, a part `**` for
/// any number of parts. The rules of fsspec's glob: a part that is only `*` stands for at least one
/// character. Case counts, and a leading dot is nothing special.
bool glob_match(std::string_view pattern, std::string_view path);

}  // namespace lorry::hub

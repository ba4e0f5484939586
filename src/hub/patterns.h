// Patterns of data files, resolved against the list of a repository's files.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace lorry::hub {

/// Splits in order, each with its patterns (or, resolved, its files).
using Splits = std::vector<std::pair<std::string, std::vector<std::string>>>;

/// The files below `base` (a folder, or empty) that one pattern takes, sorted: data files only, no
/// README and other metadata, nothing hidden or below `__folders__` that the pattern does not name.
/// Fails with invalid input if `**` is only part of a path's part.
Result<std::vector<std::string>> resolve_pattern(const std::string& pattern,
                                                 const std::string& base,
                                                 const std::vector<std::string>& paths);

/// Each split's files. A pattern without wildcards must find its file, else not found.
Result<Splits> resolve_patterns(const Splits& patterns, const std::string& base,
                                const std::vector<std::string>& paths);

/// The patterns that fit the names below `base`: data/{split}-00000-of-00001.*, else the words for
/// train, validation and test in folder names, else in file names, else everything is train.
/// Not found if there is nothing.
Result<Splits> default_patterns(const std::string& base, const std::vector<std::string>& paths);

/// `data_files` of a config: a path, a list of paths, a list of {split, path}, or {split: path}.
Result<Splits> patterns_of(const Json& data_files, const std::string& what);

/// \w+(\.\w+)*
bool is_split_name(const std::string& name);

/// A folder below a folder; "." and empty parts go away.
std::string join_folder(const std::string& base, const std::string& folder);

}  // namespace lorry::hub

// Files and directories of other programs that are taken for data and are none, by name and by
// first bytes: what they are, and what to do.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "data/source.h"

namespace lorry::data {

/// Fails with unsupported if a directory is laid out by a program whose data cannot be read file by
/// file: MosaicML's and Lightning's shards, tables of Delta Lake and Iceberg (which keep files of
/// deleted rows), caches of the Hub (which keep several revisions). `names` are all files below it,
/// relative, with forward slashes.
Result<> refuse_foreign_layout(const std::string& dir, const std::vector<std::string>& names);

/// What `datasets` leaves beside its data: the results of map and filter, which hold the rows
/// again.
bool is_cache_of_datasets(const std::string& name);

/// How many of a file's first bytes refuse_foreign_content looks at.
inline constexpr int64_t kContentBytes = 256;

/// Fails with invalid input if a file that begins with `head` is not the data that its name says: a
/// pointer of Git LFS or git-annex, an HTML page, or a file of another format.
Result<> refuse_foreign_content(const SourceFile& file, std::string_view head);

}  // namespace lorry::data

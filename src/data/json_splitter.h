// Cuts JSON files into rows: one a line, the elements of one array, or objects one after another.
#pragma once

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "data/text_format.h"

namespace lorry::data {

/// A file whose first character is '[' is an array of rows. Otherwise a row is a line, unless the
/// first line is not a whole object by itself (a pretty-printed file, several objects on a line):
/// then rows are the objects. In a .jsonl the first object must be whole and valid for that, as
/// its first line may be malformed.
Result<std::unique_ptr<BlockSplitter>> split_json(const SourceFile& file, const Place& from,
                                                  int64_t block_bytes);

/// Some rows of about `bytes` from about `offset` on, for a guess at their types; nullopt where a
/// row's begin cannot be told: only lines of plain files are read from their middle.
Result<std::optional<Block>> sample_json(const SourceFile& file, int64_t offset, int64_t bytes);

/// Begin and length of the objects of a line that holds several, and nothing else; else empty.
std::vector<std::pair<size_t, size_t>> objects_on_line(std::string_view line);

}  // namespace lorry::data

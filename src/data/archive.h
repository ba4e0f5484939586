// Data files inside of zip and tar archives.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "data/source.h"

namespace lorry::data {

/// The data files of an archive, by name, as files of their own ("a.zip/train.jsonl"); names that
/// tell a train split from others are treated as in a directory. Members are read where they lie;
/// a compressed tar is unpacked to an unnamed temporary file first. Fails with unsupported for
/// archives of pictures or sounds (WebDataset), encrypted members and methods other than deflate;
/// with not found if there is no data in it; with corrupt data if it is damaged.
Result<std::vector<SourceFile>> archive_members(const SourceFile& archive,
                                                std::vector<std::string>& notes);

/// Replaces the archives among the files by their members.
Result<> expand_archives(FoundFiles& found);

}  // namespace lorry::data

// What the names of files tell.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/source.h"

namespace lorry::data {

/// The extensions that are read, for messages.
inline constexpr char kFormats[] =
    ".jsonl, .ndjson, .json, .csv, .tsv, .parquet or .arrow, each also .gz, .zst, .bz2 or .xz, or "
    ".zip or .tar of them";

/// Without the extension of a compression, if it has one.
std::string without_compression(const std::string& name);

/// JSON files that stand beside data in many directories and are none.
bool is_metadata(const std::string& name);

/// Those of `names` that are not of the train split, if the names tell a train split from others.
std::vector<std::string> names_beside_train(const std::vector<std::string>& names);

}  // namespace lorry::data

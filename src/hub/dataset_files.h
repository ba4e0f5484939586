// Which files of a repository are a data set's split, as `datasets` 5.2 decides it.
//
// A pure function of file names and metadata, so that it serves a Hub repository and a bucket's
// prefix alike: the README's `configs`, else the names of files and folders.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace lorry::hub {

struct DatasetQuestion {
  std::string what;                ///< "openai/gsm8k", for messages
  std::vector<std::string> paths;  ///< of all files, relative to the root, with forward slashes
  std::string readme;              ///< README.md; empty if there is none
  std::string yaml;                ///< .huggingface.yaml, whose keys go before the README's
  std::string config;              ///< --config; empty: the default one
  std::string split;               ///< --split; empty: train, or the only one
};

struct DatasetFiles {
  std::string config;  ///< "default" where the repository names none
  std::string split;
  std::string module;              ///< "json", "csv", "parquet", "arrow"
  std::vector<std::string> paths;  ///< in the order in which `datasets` reads them
  std::vector<std::string> notes;  ///< files of the split that were left out, for people
};

/// Whether the metadata say which files are which: `configs`, or a block that cannot be read.
bool has_configs(const std::string& readme, const std::string& yaml);

/// Fails with usage, listing what there is, if config or split is unknown or must be chosen; with
/// not found if there are no data files; with invalid input if the metadata is broken; with
/// unsupported if the data are images, scripts or other things that are no rows, or if the config
/// has parameters that are not followed (sep, names, skiprows, ...).
Result<DatasetFiles> resolve_dataset(const DatasetQuestion& question);

}  // namespace lorry::hub

// The kinds of sources behind find_sources, one file each. Each appends its files in order.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "data/source.h"
#include "hub/dataset_files.h"
#include "sources/sources.h"

namespace lorry::sources {

/// A place on the Hub, however it was written.
struct HubPlace {
  std::string id;
  std::string revision;  ///< empty: not named
  std::string path;      ///< a file, folder or glob; empty: the data set as a whole
};

/// owner/name, hf://datasets/..., or a page of the endpoint; nullopt if it is none of them.
Result<std::optional<HubPlace>> parse_hub_place(const std::string& source);

Result<> add_hub_files(const HubPlace& place, const HubOptions& options, data::FoundFiles& found);
Result<> add_url_file(const std::string& url, data::FoundFiles& found);
Result<> add_bucket_files(const std::string& url, const HubOptions& options,
                          data::FoundFiles& found);
/// A local directory of which a config or a split is asked for.
Result<> add_directory_files(const std::string& directory, const HubOptions& options,
                             data::FoundFiles& found);

/// "scheme://host/..." as its scheme in lower case; empty for paths.
std::string scheme_of(const std::string& source);
/// The format that a named file's name tells; unsupported, saying which there are, if it tells
/// none.
Result<data::Format> format_of_named(const std::string& path);
/// Refuses files that another program lays out, unless the README says itself which are data.
Result<> refuse_foreign(const hub::DatasetQuestion& question);
/// What find_sources tells of a config or split that was chosen.
void say_choice(const std::string& what, const hub::DatasetFiles& files);

}  // namespace lorry::sources

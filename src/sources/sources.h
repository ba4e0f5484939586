// What the SOURCE arguments of an import stand for: files, wherever they lie.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "data/source.h"

namespace lorry::sources {

/// Which part of a data set is meant: --config, --split, --revision.
struct HubOptions {
  std::string config;    ///< empty: the default one
  std::string split;     ///< empty: train, or the only one
  std::string revision;  ///< branch, tag or commit of the Hub; empty: main
};

/// The files of `sources`, in order. A source is
///   a local file, directory or glob (data::find_files);
///   a Hub id, owner/name, if no such local path exists: the split's files as `datasets` finds
///   them; hf://datasets/owner/name[@revision][/path or glob]; https:// (or http://) URL of one
///   file; s3://, gs:// or az:// URL of an object, a prefix or a glob;
///   @FILE: a list of sources, one a line, blank lines and lines that begin with # left out.
/// Files open lazily and are read by range; `version` is what changes with their bytes. A Hub
/// revision is resolved once: paths name its commit. Fails with what the source is and what to do.
Result<data::FoundFiles> find_sources(const std::vector<std::string>& sources,
                                      const HubOptions& options);

/// The data set's name in the bucket when none was given: a Hub id as it is; of anything else the
/// stem of the path, without format and compression ("a/b/train.jsonl.gz" is "train").
std::string default_dataset_name(const std::string& source);

/// "owner/name" that is no local path: an id of the Hub. False for names that end as data files do.
bool is_hub_source(const std::string& source);

}  // namespace lorry::sources

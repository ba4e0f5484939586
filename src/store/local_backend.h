// A bucket that is a directory of a local (or mounted) file system.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "store/backend.h"

namespace lorry::store {

/// Opens directory `root`, made with its parents if it is missing and `create` is set.
///
/// Objects are files; a writer works in `{root}/.lorry-tmp/` and renames into place after fsync of
/// the file (and of its new directory). What a killed writer leaves there is removed when a later
/// process of the same host opens the bucket, once no living process owns it.
Result<std::unique_ptr<Backend>> open_local_backend(const std::string& root, bool create);

}  // namespace lorry::store

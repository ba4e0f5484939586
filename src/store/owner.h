// Whether an output in the bucket is of the model and data set that its path seems to name.
#pragma once

#include <string>

#include "base/json.h"
#include "base/result.h"

namespace lorry::store {

/// Fails if info.json of `dir` says that it is of another model or data set: names with slashes can
/// meet in one directory (`a` and `b/c`, `a/b` and `c`).
Result<> check_owner(const std::string& dir, const Json& info, const std::string& model,
                     const std::string& dataset);

}  // namespace lorry::store

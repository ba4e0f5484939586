// A bucket of Amazon S3 or of anything that speaks its protocol.
#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"
#include "store/backend.h"

namespace lorry::store {

/// Opens s3://NAME[/prefix], with `rest` what follows the "//". The bucket has to be there; one
/// request finds out, so that wrong keys, regions and names are known at once.
Result<std::unique_ptr<Backend>> open_s3_backend(std::string_view rest);

}  // namespace lorry::store

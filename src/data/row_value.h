// One value of an array as JSON: what row_to_json (shard.h) makes of each column.
#pragma once

#include <arrow/type_fwd.h>

#include <cstdint>

#include "base/json.h"

namespace lorry::data {

/// Value `i`: structs and maps with text keys as objects, lists as arrays; bytes that are no UTF-8
/// as binary, which is no text.
Json value_to_json(const arrow::Array& array, int64_t i);

}  // namespace lorry::data

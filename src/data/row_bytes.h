// How many bytes rows take, whatever batches they come in.
#pragma once

#include <arrow/type_fwd.h>

#include <cstdint>

namespace lorry::data {

/// Of rows [begin, end): values, offsets and text, without validity bits and padding. Adds up: two
/// runs of rows take what both take together, so that decisions made by it depend on rows alone.
int64_t row_bytes(const arrow::RecordBatch& batch, int64_t begin, int64_t end);

}  // namespace lorry::data

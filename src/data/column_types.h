// The types of columns: those that files have, those that shards hold, and one type for several
// files whose columns differ.
#pragma once

#include <arrow/type_fwd.h>

#include <memory>
#include <string>

#include "base/result.h"

namespace lorry::data {

/// The schema in which shards hold a file's rows. Types that `datasets` has no feature for are held
/// as what they mean: dictionaries, runs and views as their values, list views as lists, maps as
/// JSON objects (without text keys: as lists of pairs), extensions as what they store. Every field
/// may be null. Fails with unsupported, naming the field, for types that have no such form (unions,
/// intervals), and with invalid input if two fields have the same name.
Result<std::shared_ptr<arrow::Schema>> shard_schema(const arrow::Schema& schema);

/// One schema for rows of `first` and of `second`, both of shard_schema: the fields of both at
/// every level, in the order in which they come, each of a type that holds the values of both
/// unchanged. Fails with invalid input, naming the field and its two types, if there is none.
Result<std::shared_ptr<arrow::Schema>> merge_schemas(const arrow::Schema& first,
                                                     const arrow::Schema& second);

/// The rows with the columns of `schema`, null where they are missing. `schema` is of merge_schemas
/// with that of the rows. Fails with invalid input, naming the column, where a value does not fit.
Result<std::shared_ptr<arrow::RecordBatch>> conform(const arrow::RecordBatch& rows,
                                                    const std::shared_ptr<arrow::Schema>& schema);

}  // namespace lorry::data

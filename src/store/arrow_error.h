// Arrow's statuses as our errors.
#pragma once

#include <arrow/result.h>
#include <arrow/status.h>

#include <string>
#include <string_view>

#include "base/result.h"

namespace lorry::store {

/// The first line of what Arrow says, with the operating system's reason ("No space left on
/// device") in place of its own words where there is one.
std::string arrow_reason(const arrow::Status& status);

/// "{context}: {reason}". I/O errors become unavailable (a missing file not found), the rest
/// corrupt data: Arrow met bytes that are not what they should be.
Error from_arrow(const arrow::Status& status, std::string_view context);

/// The value of an arrow::Result, or our error.
template <typename T>
Result<T> from_arrow(arrow::Result<T> result, std::string_view context) {
  if (!result.ok()) return from_arrow(result.status(), context);
  return std::move(result).ValueUnsafe();
}

}  // namespace lorry::store

/// Returns an arrow::Status's error, with `context`, from the enclosing function, if it is one.
#define LORRY_ARROW_TRY(expr, context)                               \
  do {                                                               \
    if (::arrow::Status lorry_status_ = (expr); !lorry_status_.ok()) \
      return ::lorry::store::from_arrow(lorry_status_, (context));   \
  } while (false)

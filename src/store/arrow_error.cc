#include "store/arrow_error.h"

#include <arrow/util/io_util.h>  // ErrnoFromStatus

#include <cerrno>
#include <cstring>

#include "base/first_line.h"
#include "net/arrow_status.h"

namespace lorry::store {

std::string arrow_reason(const arrow::Status& status) {
  if (const int error = arrow::internal::ErrnoFromStatus(status)) return std::strerror(error);
  return std::string(first_line(status.message()));
}

Error from_arrow(const arrow::Status& status, std::string_view context) {
  if (const Error* ours = net::error_in(status)) return *ours;  // it names its object
  std::string message = std::string(context) + ": " + arrow_reason(status);
  if (arrow::internal::ErrnoFromStatus(status) == ENOENT) return not_found(std::move(message));
  if (status.IsIOError() || status.IsOutOfMemory()) return unavailable(std::move(message));
  if (status.IsNotImplemented()) return unsupported(std::move(message));
  if (status.IsCancelled()) return cancelled(std::move(message));
  return corrupt_data(std::move(message));
}

}  // namespace lorry::store

// Our errors inside Arrow's statuses, so that their kind survives a way through Arrow's interfaces.
#pragma once

#include <arrow/status.h>

#include "base/result.h"

namespace lorry::net {

/// An IOError that carries `error`.
arrow::Status to_arrow(const Error& error);
/// The error that `to_arrow` put in, or nullptr.
const Error* error_in(const arrow::Status& status);

}  // namespace lorry::net

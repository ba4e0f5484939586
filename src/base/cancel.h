// Orderly stop: SIGINT and SIGTERM set a flag that long loops ask for between units of work.
#pragma once

#include "base/result.h"

namespace lorry {

/// Installs the handlers. A second signal of the same kind ends the process at once.
void install_cancel_handlers();

/// The signal that asked for a stop, or 0.
int cancel_signal();
inline bool cancel_requested() { return cancel_signal() != 0; }

/// Asks for a stop from inside the process, as if `signal` had arrived (tests, the server's end).
void request_cancel(int signal);
/// Forgets an earlier request (tests).
void reset_cancel();

/// An error of kind kCancelled when a stop was asked for.
Result<> check_cancelled();

}  // namespace lorry

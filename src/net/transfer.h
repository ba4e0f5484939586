// One try of one request on one libcurl handle: what came of it, and whether another try may help.
#pragma once

#include <optional>
#include <string>

#include "net/curl_library.h"
#include "net/http.h"

namespace lorry::net {

/// How a try ended. Exactly one of the three: `response`; `error`, final; or `reason` to try again.
struct TryOutcome {
  std::optional<Response> response;
  std::optional<Error> error;
  std::string reason;        ///< "cannot connect to ...: Connection refused"
  double retry_after = 0;    ///< seconds the server asked for
  bool unreachable = false;  ///< no connection came about: nobody answered at this address
};

/// Performs `request` on `handle`, which is reset first. Never throws.
TryOutcome try_once(const CurlLibrary& curl, CURL* handle, Request& request,
                    const RetryPolicy& policy);

/// Makes transfers that are under way end soon; the process is about to.
void stop_all_transfers();

}  // namespace lorry::net

// The same work on many things, several at a time.
#pragma once

#include <cstdint>
#include <functional>

#include "base/result.h"

namespace lorry {

/// Calls work(0) to work(count - 1), in this order of beginning, on up to `threads` threads, the
/// caller's among them. After the first error nothing new begins; that error is returned.
Result<> in_parallel(int64_t count, int64_t threads, const std::function<Result<>(int64_t)>& work);

}  // namespace lorry

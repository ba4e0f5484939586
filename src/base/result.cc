#include "base/result.h"

namespace lorry {

std::string_view error_kind_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage:
      return "wrong usage";
    case ErrorKind::kNotFound:
      return "not found";
    case ErrorKind::kInvalidInput:
      return "invalid input";
    case ErrorKind::kCorruptData:
      return "corrupt data";
    case ErrorKind::kUnavailable:
      return "unavailable";
    case ErrorKind::kUnsupported:
      return "unsupported";
    case ErrorKind::kCancelled:
      return "cancelled";
  }
  return "error";
}

}  // namespace lorry

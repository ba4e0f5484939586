#include "hub/git_blob.h"

#include <fmt/format.h>

namespace lorry::hub {

GitBlob::GitBlob(int64_t size) {
  sha1_.update(fmt::format("blob {}", size));
  sha1_.update(std::string_view("\0", 1));
}

}  // namespace lorry::hub

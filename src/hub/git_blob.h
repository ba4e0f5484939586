// The id that git gives to a file's bytes; the Hub tells it of every file that is not in LFS.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/sha1.h"

namespace lorry::hub {

/// SHA-1 over "blob SIZE\0" and the bytes. Not thread-safe.
class GitBlob {
 public:
  explicit GitBlob(int64_t size);
  void update(std::string_view bytes) { sha1_.update(bytes); }
  /// 40 lower-case hex digits. Ends the object's use.
  std::string hex() { return sha1_.hex(); }

 private:
  Sha1 sha1_;
};

}  // namespace lorry::hub

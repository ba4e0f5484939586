// Where the members of an archive lie.
#pragma once

#include <arrow/io/interfaces.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "data/source.h"

namespace lorry::data {

struct ArchiveMember {
  std::string name;
  int64_t offset = 0;  ///< of its stored bytes; of its header in a zip archive (zip_bytes_at)
  int64_t size = 0;    ///< as stored
  std::optional<ZippedMember> zipped;  ///< set where it is deflated
};

/// The regular files of an archive, in its order, from its directory (zip) or headers (tar: ustar,
/// pax and GNU's long names). `path` is for messages. Fails with corrupt data or unsupported.
Result<std::vector<ArchiveMember>> zip_members(arrow::io::RandomAccessFile& file,
                                               const std::string& path);
Result<std::vector<ArchiveMember>> tar_members(arrow::io::RandomAccessFile& file,
                                               const std::string& path);

/// Where the stored bytes of a member of a zip archive begin.
Result<int64_t> zip_bytes_at(arrow::io::RandomAccessFile& file, const ArchiveMember& member,
                             const std::string& path);

}  // namespace lorry::data

#include "store/checksum.h"

#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>

#include "base/cancel.h"
#include "base/crc32c.h"
#include "store/arrow_error.h"

namespace lorry::store {
namespace {

constexpr int64_t kPieceBytes = 4 << 20;

}  // namespace

Result<Checksum> read_checksum(const Bucket& bucket, const std::string& path,
                               const std::function<void(std::string_view)>& on_bytes) {
  LORRY_ASSIGN(const auto stream, bucket.open_stream(path));
  Checksum sum;
  while (true) {
    LORRY_TRY(check_cancelled());
    LORRY_ASSIGN(const auto piece, from_arrow(stream->Read(kPieceBytes), path));
    if (piece->size() == 0) return sum;
    sum.crc32c = lorry::crc32c(sum.crc32c, piece->data(), size_t(piece->size()));
    sum.size += piece->size();
    if (on_bytes) on_bytes(std::string_view(*piece));
  }
}

}  // namespace lorry::store

#include "store/backend.h"

#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>

#include "store/arrow_error.h"
#include "store/spool.h"

namespace lorry::store {

Result<std::string> Backend::read(const std::string& path) const {
  LORRY_ASSIGN(auto stream, open_stream(path, 0));
  std::string bytes;
  for (;;) {
    auto piece = stream->Read(1 << 20);
    if (!piece.ok()) return from_arrow(piece.status(), path);
    if ((*piece)->size() == 0) return bytes;
    bytes.append(reinterpret_cast<const char*>((*piece)->data()), size_t((*piece)->size()));
  }
}

Result<std::shared_ptr<arrow::io::RandomAccessFile>> Backend::open_mapped(
    const std::string& path) const {
  LORRY_ASSIGN(auto info, stat(path));
  if (!info || info->is_directory) return not_found(path + " is not there");
  LORRY_ASSIGN(auto stream, open_stream(path, 0));
  return spool(*stream, info->size, path);
}

Result<> Backend::move(const std::string& from, const std::string& to, const Guard& guard) const {
  LORRY_ASSIGN(const auto stream, open_stream(from, 0));
  LORRY_ASSIGN(const auto copy, create(to));
  const auto write_all = [&]() -> Result<> {
    for (;;) {
      LORRY_ASSIGN(const auto piece, from_arrow(stream->Read(4 << 20), from));
      if (piece->size() == 0) return {};
      LORRY_ARROW_TRY(copy->stream().Write(piece), to);
    }
  };
  if (const auto written = write_all(); !written.ok()) {
    copy->abandon();
    return written;
  }
  LORRY_TRY(copy->commit(guard));
  LORRY_TRY(ask(guard));
  return remove(from);
}

}  // namespace lorry::store

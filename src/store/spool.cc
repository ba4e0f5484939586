#include "store/spool.h"

#include <arrow/buffer.h>
#include <arrow/io/file.h>
#include <arrow/io/memory.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "base/progress.h"  // format_bytes
#include "store/arrow_error.h"

namespace lorry::store {
namespace {

std::string temporary_dir() {
  std::error_code ignored;
  auto dir = std::filesystem::temp_directory_path(ignored);
  return ignored ? "/tmp" : dir.string();
}

/// A descriptor that closes itself.
class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

int open_unnamed(const std::string& dir) {
  const int fd = ::open(dir.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return fd;
  std::string name = dir + "/lorry-spool-XXXXXX";
  const int named = ::mkostemp(name.data(), O_CLOEXEC);
  if (named >= 0) ::unlink(name.c_str());
  return named;
}

Error no_room(std::string_view name, int64_t size, const std::string& dir) {
  struct statvfs room;
  const double there =
      ::statvfs(dir.c_str(), &room) == 0 ? double(room.f_bavail) * double(room.f_frsize) : 0;
  return unavailable(
      fmt::format("{}: its {} do not fit in {}, which has {} left; set TMPDIR to a larger disk",
                  name, format_bytes(double(size)), dir, format_bytes(there)));
}

Error disk_failed(std::string_view name, int64_t size, const std::string& dir, int error) {
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) return no_room(name, size, dir);
  return unavailable(
      fmt::format("{}: cannot keep a copy in {}: {}", name, dir, std::strerror(error)));
}

}  // namespace

Result<std::shared_ptr<arrow::io::RandomAccessFile>> spool(arrow::io::InputStream& from,
                                                           int64_t size, std::string_view name) {
  if (size == 0) {
    return std::shared_ptr<arrow::io::RandomAccessFile>(
        std::make_shared<arrow::io::BufferReader>(arrow::Buffer::FromString("")));
  }
  const std::string dir = temporary_dir();
  const File file(open_unnamed(dir));
  if (file.fd() < 0) return disk_failed(name, size, dir, errno);
  if (const int error = ::posix_fallocate(file.fd(), 0, size)) {
    return disk_failed(name, size, dir, error);
  }
  int64_t done = 0;
  for (;;) {
    auto piece = from.Read(4 << 20);
    if (!piece.ok()) return from_arrow(piece.status(), name);
    const auto& buffer = **piece;
    if (buffer.size() == 0) break;
    for (int64_t at = 0; at < buffer.size();) {
      const ssize_t wrote =
          ::pwrite(file.fd(), buffer.data() + at, size_t(buffer.size() - at), done);
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote < 0) return disk_failed(name, size, dir, errno);
      at += wrote;
      done += wrote;
    }
  }
  if (done != size) {
    return corrupt_data(fmt::format("{}: {} bytes came, {} were announced", name, done, size));
  }
  auto mapped = arrow::io::MemoryMappedFile::Open(fmt::format("/proc/self/fd/{}", file.fd()),
                                                  arrow::io::FileMode::READ);
  if (!mapped.ok()) return from_arrow(mapped.status(), name);
  return std::shared_ptr<arrow::io::RandomAccessFile>(*mapped);
}

}  // namespace lorry::store

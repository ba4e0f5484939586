#include "store/local_backend.h"

#include <arrow/io/file.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>  // kill(pid, 0): does the writer of a leftover still live?
#include <sys/stat.h>
#include <sys/statfs.h>  // is it a FUSE mount?
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "store/arrow_error.h"
#include "store/hashing_stream.h"
#include "store/layout.h"

namespace lorry::store {
namespace {

namespace fs = std::filesystem;

constexpr char kTemporaryDir[] = ".lorry-tmp";

std::string reason(int error) { return std::strerror(error); }

Error failed(std::string_view what, const fs::path& path, int error) {
  return unavailable(fmt::format("cannot {} {}: {}", what, path.string(), reason(error)));
}

Error failed(std::string_view what, const fs::path& path, const std::error_code& error) {
  return failed(what, path, error.value());
}

bool is_missing(const std::error_code& error) {
  return error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory;
}

/// Mounts of object stores (geesefs, rclone) say so when fsync means nothing to them; what they do
/// instead is theirs to answer for.
bool means_no_sync(int error) { return error == EINVAL || error == ENOTSUP || error == ENOSYS; }

bool is_fuse(const fs::path& path) {
  constexpr decltype(statfs::f_type) kFuseMagic = 0x65735546;
  struct statfs found;
  return ::statfs(path.c_str(), &found) == 0 && found.f_type == kFuseMagic;
}

int64_t milliseconds(const timespec& time) {
  return int64_t(time.tv_sec) * 1000 + time.tv_nsec / 1'000'000;
}

/// Seconds and nanoseconds of the last change.
std::string version_of(const struct stat& found) {
  return fmt::format("{}.{:09}", int64_t(found.st_mtim.tv_sec), int64_t(found.st_mtim.tv_nsec));
}

/// Makes a rename or a new file in `dir` survive a crash, where the file system can.
Result<> sync_directory(const fs::path& dir) {
  const int fd = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return failed("open directory", dir, errno);
  const int status = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  if (status != 0 && !means_no_sync(error)) return failed("sync", dir, error);
  return {};
}

/// Begins to write to the disk what has gone through: a sync at the end then waits for little, and
/// the disk works while the next bytes are made.
class EarlyWriteBack final : public arrow::io::OutputStream {
 public:
  EarlyWriteBack(std::shared_ptr<arrow::io::OutputStream> file, int fd)
      : file_(std::move(file)), fd_(fd) {}

  using arrow::io::OutputStream::Write;
  arrow::Status Write(const void* data, int64_t size) override {
    ARROW_RETURN_NOT_OK(file_->Write(data, size));
    written_ += size;
    if (written_ - begun_ >= kStep) {
      // Only a hint: whether the bytes are on the disk is asked of fsync.
      (void)::sync_file_range(fd_, begun_, written_ - begun_, SYNC_FILE_RANGE_WRITE);
      begun_ = written_;
    }
    return arrow::Status::OK();
  }
  arrow::Status Flush() override { return file_->Flush(); }
  arrow::Status Close() override { return file_->Close(); }
  bool closed() const override { return file_->closed(); }
  arrow::Result<int64_t> Tell() const override { return file_->Tell(); }

 private:
  static constexpr int64_t kStep = 8 << 20;

  std::shared_ptr<arrow::io::OutputStream> file_;
  const int fd_;
  int64_t written_ = 0, begun_ = 0;
};

class LocalPending final : public PendingObject {
 public:
  LocalPending(fs::path temporary, fs::path target, std::shared_ptr<arrow::io::OutputStream> out,
               int fd)
      : temporary_(std::move(temporary)),
        target_(std::move(target)),
        stream_(
            std::make_shared<HashingStream>(std::make_shared<EarlyWriteBack>(std::move(out), fd))),
        fd_(fd) {}
  ~LocalPending() override { abandon(); }

  arrow::io::OutputStream& stream() override { return *stream_; }

  Result<> commit(const Guard& guard) override {
    // The stream owns the descriptor; sync before it closes.
    if (auto status = stream_->Flush(); !status.ok()) return write_failed(status);
    if (::fsync(fd_) != 0 && !means_no_sync(errno)) {
      const int error = errno;
      abandon();
      return failed("write", target_, error);
    }
    if (auto status = stream_->Close(); !status.ok()) return write_failed(status);
    std::error_code error;
    // Another process may remove the last other file of the directory, and the directory with it
    // (remove), between the two steps: try again.
    for (int attempt = 0; attempt < 10; ++attempt) {
      LORRY_TRY(make_parent());
      if (auto consent = ask(guard); !consent.ok()) {
        abandon();
        return consent;
      }
      fs::rename(temporary_, target_, error);
      if (!error || !is_missing(error)) break;
    }
    if (error) {
      abandon();
      return failed("write", target_, error);
    }
    done_ = true;
    LORRY_TRY(sync_directory(target_.parent_path()));
    return check_mounted();
  }

  int64_t size() const override { return stream_->size(); }
  uint32_t crc32c() const override { return stream_->crc32c(); }

  void abandon() override {
    if (done_) return;
    done_ = true;
    if (!stream_->closed()) (void)stream_->Close();
    std::error_code ignored;
    fs::remove(temporary_, ignored);
  }

 private:
  Result<> make_parent() {
    std::error_code error;
    fs::create_directories(target_.parent_path(), error);
    if (!error) return {};
    abandon();
    return failed("create directory", target_.parent_path(), error);
  }

  /// A mount of an object store may take a file and lose it on the way.
  Result<> check_mounted() {
    if (!is_fuse(target_.parent_path())) return {};
    struct stat found;
    if (::stat(target_.c_str(), &found) != 0)
      return failed("find what was written to", target_, errno);
    if (found.st_size == size()) return {};
    return unavailable(fmt::format("cannot write {}: the mount kept {} of {} bytes",
                                   target_.string(), int64_t(found.st_size), size()));
  }

  Error write_failed(const arrow::Status& status) {
    abandon();
    return unavailable(fmt::format("cannot write {}: {}", target_.string(), arrow_reason(status)));
  }

  fs::path temporary_;
  fs::path target_;
  std::shared_ptr<HashingStream> stream_;
  int fd_;
  bool done_ = false;
};

class LocalBackend final : public Backend {
 public:
  explicit LocalBackend(fs::path root) : root_(std::move(root)) { remove_leftovers(); }
  ~LocalBackend() override {
    std::error_code ignored;
    fs::remove(root_ / kTemporaryDir, ignored);  // succeeds only when it is empty
  }

  bool is_local() const override { return true; }

  Result<std::optional<ObjectInfo>> stat(const std::string& path) const override {
    struct stat found;
    const fs::path full = root_ / path;
    if (::stat(full.c_str(), &found) != 0) {
      if (errno == ENOENT || errno == ENOTDIR) return std::optional<ObjectInfo>();
      return failed("look at", full, errno);
    }
    const bool directory = S_ISDIR(found.st_mode);
    if (directory) return std::optional<ObjectInfo>(ObjectInfo{path, 0, true, ""});
    return std::optional<ObjectInfo>(ObjectInfo{path, int64_t(found.st_size), false,
                                                version_of(found), milliseconds(found.st_mtim)});
  }

  Result<std::vector<ObjectInfo>> list(const std::string& path, bool recursive) const override {
    std::vector<ObjectInfo> found;
    std::vector<FileId> inside;
    LORRY_TRY(list_into(path, recursive, inside, found));
    std::sort(found.begin(), found.end(),
              [](const auto& a, const auto& b) { return a.path < b.path; });
    return found;
  }

  Result<std::shared_ptr<arrow::io::RandomAccessFile>> open_input(
      const std::string& path) const override {
    LORRY_ASSIGN(const int64_t size, size_of(path));
    const std::string full = (root_ / path).string();
    // mmap refuses empty files.
    if (size == 0) {
      LORRY_ASSIGN(auto file, open_plain(full));
      return std::shared_ptr<arrow::io::RandomAccessFile>(std::move(file));
    }
    auto file = arrow::io::MemoryMappedFile::Open(full, arrow::io::FileMode::READ);
    if (!file.ok()) return from_arrow(file.status(), full);
    return std::shared_ptr<arrow::io::RandomAccessFile>(*file);
  }

  Result<std::shared_ptr<arrow::io::RandomAccessFile>> open_mapped(
      const std::string& path) const override {
    return open_input(path);
  }

  Result<std::shared_ptr<arrow::io::InputStream>> open_stream(const std::string& path,
                                                              int64_t offset) const override {
    LORRY_TRY(size_of(path));
    const std::string full = (root_ / path).string();
    LORRY_ASSIGN(auto file, open_plain(full));
    (void)::posix_fadvise(file->file_descriptor(), 0, 0, POSIX_FADV_SEQUENTIAL);
    if (offset > 0) LORRY_ARROW_TRY(file->Seek(offset), full);
    return std::shared_ptr<arrow::io::InputStream>(std::move(file));
  }

  Result<std::unique_ptr<PendingObject>> create(const std::string& path) const override {
    LORRY_ASSIGN(auto pending, create_file(path));
    return std::unique_ptr<PendingObject>(std::move(pending));
  }

  Result<> move(const std::string& from, const std::string& to, const Guard& guard) const override {
    const fs::path target = root_ / to;
    std::error_code error;
    fs::create_directories(target.parent_path(), error);
    if (error) return failed("create directory", target.parent_path(), error);
    LORRY_TRY(ask(guard));
    fs::rename(root_ / from, target, error);
    if (error) return failed("move to", target, error);
    return sync_directory(target.parent_path());
  }

  Result<> remove(const std::string& path) const override {
    std::error_code error;
    fs::remove_all(root_ / path, error);
    if (error && !is_missing(error)) return failed("remove", root_ / path, error);
    // Claims come and go; their directory goes with the last, as in a store that has none.
    const fs::path parent = fs::path(path).parent_path();
    if (parent == claims_dir()) fs::remove(root_ / parent, error);  // only when it is empty
    return {};
  }

 private:
  /// Of a file that is there; errors for a missing one and for a directory.
  Result<int64_t> size_of(const std::string& path) const {
    LORRY_ASSIGN(auto info, stat(path));
    const std::string full = (root_ / path).string();
    if (!info) return not_found(fmt::format("{} is not there", full));
    if (info->is_directory) {
      return invalid_input(fmt::format("{} is a directory, not a file", full));
    }
    return info->size;
  }

  static Result<std::shared_ptr<arrow::io::ReadableFile>> open_plain(const std::string& full) {
    return from_arrow(arrow::io::ReadableFile::Open(full), full);
  }

  Result<std::unique_ptr<LocalPending>> create_file(const std::string& path) const {
    static std::atomic<int64_t> serial = 0;
    const fs::path target = root_ / path;
    std::error_code unreadable;  // the open below says why
    if (fs::is_directory(target, unreadable)) {
      return invalid_input(fmt::format("cannot write {}: it is a directory", target.string()));
    }
    const fs::path dir = root_ / kTemporaryDir;
    const fs::path temporary = dir / fmt::format("{}.{}.{}", host(), ::getpid(), serial++);
    int fd = -1;
    // Another process may remove the empty directory between the two steps: try again.
    for (int attempt = 0; fd < 0 && attempt < 10; ++attempt) {
      std::error_code error;
      fs::create_directories(dir, error);
      if (error) return failed("write in bucket", root_, error);
      fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
      if (fd < 0 && errno != ENOENT) break;
    }
    if (fd < 0) return failed("write", target, errno);
    auto out = arrow::io::FileOutputStream::Open(fd);
    if (!out.ok()) {
      ::close(fd);
      return unavailable(
          fmt::format("cannot write {}: {}", target.string(), arrow_reason(out.status())));
    }
    return std::make_unique<LocalPending>(temporary, target, std::move(*out), fd);
  }

  static std::string host() {
    char name[256] = {};
    ::gethostname(name, sizeof(name) - 1);
    std::string text = name;
    std::replace(text.begin(), text.end(), '.', '-');
    return text;
  }

  using FileId = std::pair<dev_t, ino_t>;

  /// `inside` are the directories around `path`: a link to one of them is not followed.
  Result<> list_into(const std::string& path, bool recursive, std::vector<FileId>& inside,
                     std::vector<ObjectInfo>& found) const {
    struct stat self;
    const fs::path full = root_ / path;
    if (::stat(full.c_str(), &self) != 0) return list_entries(path, recursive, inside, found);
    const FileId id{self.st_dev, self.st_ino};
    if (std::find(inside.begin(), inside.end(), id) != inside.end()) return {};
    inside.push_back(id);
    LORRY_TRY(list_entries(path, recursive, inside, found));
    inside.pop_back();
    return {};
  }

  Result<> list_entries(const std::string& path, bool recursive, std::vector<FileId>& inside,
                        std::vector<ObjectInfo>& found) const {
    std::error_code error;
    fs::directory_iterator entries(root_ / path, error);
    if (is_missing(error)) return {};
    if (error) return failed("list", root_ / path, error);
    for (const auto end = fs::directory_iterator(); entries != end; entries.increment(error)) {
      if (error) return failed("list", root_ / path, error);
      const std::string name = entries->path().filename().string();
      if (name == kTemporaryDir) continue;
      LORRY_ASSIGN(auto info, stat(join_path(path, name)));
      if (!info) continue;  // removed meanwhile, or a dangling link
      const bool descend = recursive && info->is_directory;
      if (descend) {
        LORRY_TRY(list_into(info->path, true, inside, found));
      } else {
        found.push_back(std::move(*info));
      }
    }
    if (error) return failed("list", root_ / path, error);
    return {};
  }

  /// Temporary files are named host.pid.serial: those of dead processes of this host can go.
  void remove_leftovers() const {
    std::error_code error;
    const std::string mine = host() + ".";
    for (fs::directory_iterator it(root_ / kTemporaryDir, error), end; !error && it != end;
         it.increment(error)) {
      const std::string name = it->path().filename().string();
      if (!name.starts_with(mine)) continue;
      pid_t pid = 0;
      std::from_chars(name.data() + mine.size(), name.data() + name.size(), pid);
      if (pid <= 0 || pid == ::getpid()) continue;
      if (::kill(pid, 0) == 0 || errno != ESRCH) continue;
      std::error_code ignored;
      fs::remove(it->path(), ignored);
    }
    std::error_code ignored;
    fs::remove(root_ / kTemporaryDir, ignored);  // succeeds only when it is empty
  }

  fs::path root_;
};

}  // namespace

Result<std::unique_ptr<Backend>> open_local_backend(const std::string& root, bool create) {
  std::error_code error;
  const fs::file_status status = fs::status(root, error);
  if (fs::exists(status) && !fs::is_directory(status)) {
    return invalid_input(fmt::format("bucket {} is a file; name a directory", root));
  }
  if (!fs::exists(status)) {
    if (error && !is_missing(error)) return failed("open bucket", root, error);
    if (!create) {
      return not_found(fmt::format(
          "there is no bucket at {}; import a data set or a model first, or name another", root));
    }
    fs::create_directories(root, error);
    if (error) return failed("create bucket", root, error);
  }
  // access() would say yes to root on a read-only mount only sometimes; the first write tells.
  if (create && ::access(root.c_str(), W_OK | X_OK) != 0) {
    return unavailable(fmt::format("bucket {} cannot be written: {}", root, reason(errno)));
  }
  return std::unique_ptr<Backend>(std::make_unique<LocalBackend>(fs::absolute(root)));
}

}  // namespace lorry::store

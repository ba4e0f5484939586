#include "store/local_backend.h"

#include <arrow/io/file.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>  // kill(pid, 0): does the writer of a leftover still live?
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "store/arrow_error.h"

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

/// Makes a rename or a new file in `dir` survive a crash. Some mounted file systems cannot; they
/// say EINVAL, which is theirs to answer for.
Result<> sync_directory(const fs::path& dir) {
  const int fd = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return failed("open directory", dir, errno);
  const int status = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  if (status != 0 && error != EINVAL && error != ENOTSUP) return failed("sync", dir, error);
  return {};
}

class LocalPending final : public PendingObject {
 public:
  LocalPending(fs::path temporary, fs::path target, std::shared_ptr<arrow::io::OutputStream> out,
               int fd)
      : temporary_(std::move(temporary)),
        target_(std::move(target)),
        stream_(std::move(out)),
        fd_(fd) {}
  ~LocalPending() override { abandon(); }

  arrow::io::OutputStream& stream() override { return *stream_; }

  Result<> commit() override {
    // The stream owns the descriptor; sync before it closes.
    if (auto status = stream_->Flush(); !status.ok()) return write_failed(status);
    if (::fsync(fd_) != 0) {
      const int error = errno;
      abandon();
      return failed("write", target_, error);
    }
    if (auto status = stream_->Close(); !status.ok()) return write_failed(status);
    std::error_code error;
    fs::create_directories(target_.parent_path(), error);
    if (error) {
      abandon();
      return failed("create directory", target_.parent_path(), error);
    }
    fs::rename(temporary_, target_, error);
    if (error) {
      abandon();
      return failed("write", target_, error);
    }
    done_ = true;
    return sync_directory(target_.parent_path());
  }

  void abandon() override {
    if (done_) return;
    done_ = true;
    if (!stream_->closed()) (void)stream_->Close();
    std::error_code ignored;
    fs::remove(temporary_, ignored);
  }

 private:
  Error write_failed(const arrow::Status& status) {
    abandon();
    return unavailable(fmt::format("cannot write {}: {}", target_.string(), arrow_reason(status)));
  }

  fs::path temporary_;
  fs::path target_;
  std::shared_ptr<arrow::io::OutputStream> stream_;
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

  Result<std::optional<ObjectInfo>> stat(const std::string& path) const override {
    struct stat found;
    const fs::path full = root_ / path;
    if (::stat(full.c_str(), &found) != 0) {
      if (errno == ENOENT || errno == ENOTDIR) return std::optional<ObjectInfo>();
      return failed("look at", full, errno);
    }
    const bool directory = S_ISDIR(found.st_mode);
    return std::optional<ObjectInfo>(
        ObjectInfo{path, directory ? 0 : int64_t(found.st_size), directory});
  }

  Result<std::vector<ObjectInfo>> list(const std::string& path, bool recursive) const override {
    std::vector<ObjectInfo> found;
    LORRY_TRY(list_into(path, recursive, found));
    std::sort(found.begin(), found.end(),
              [](const auto& a, const auto& b) { return a.path < b.path; });
    return found;
  }

  Result<std::shared_ptr<arrow::io::RandomAccessFile>> open_input(
      const std::string& path) const override {
    LORRY_ASSIGN(auto info, stat(path));
    if (!info) return not_found(fmt::format("{} is not there", (root_ / path).string()));
    if (info->is_directory) {
      return invalid_input(fmt::format("{} is a directory, not a file", (root_ / path).string()));
    }
    const std::string full = (root_ / path).string();
    // mmap refuses empty files.
    if (info->size == 0) {
      auto file = arrow::io::ReadableFile::Open(full);
      if (!file.ok()) return from_arrow(file.status(), full);
      return std::shared_ptr<arrow::io::RandomAccessFile>(*file);
    }
    auto file = arrow::io::MemoryMappedFile::Open(full, arrow::io::FileMode::READ);
    if (!file.ok()) return from_arrow(file.status(), full);
    return std::shared_ptr<arrow::io::RandomAccessFile>(*file);
  }

  Result<std::unique_ptr<PendingObject>> create(const std::string& path) const override {
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
    return std::unique_ptr<PendingObject>(
        std::make_unique<LocalPending>(temporary, target, std::move(*out), fd));
  }

  Result<> remove(const std::string& path) const override {
    std::error_code error;
    fs::remove_all(root_ / path, error);
    if (error && !is_missing(error)) return failed("remove", root_ / path, error);
    return {};
  }

 private:
  static std::string host() {
    char name[256] = {};
    ::gethostname(name, sizeof(name) - 1);
    std::string text = name;
    std::replace(text.begin(), text.end(), '.', '-');
    return text;
  }

  Result<> list_into(const std::string& path, bool recursive,
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
        LORRY_TRY(list_into(info->path, true, found));
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

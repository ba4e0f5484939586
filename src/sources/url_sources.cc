// Single files behind http:// and https:// URLs.
#include <arrow/io/file.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "net/http.h"
#include "net/http_file.h"
#include "net/ranges.h"
#include "sources/source_kinds.h"
#include "store/arrow_error.h"

namespace lorry::sources {
namespace {

/// A URL for people and for info.json: without user, password and query, which may be secrets.
std::string plain_url(const std::string& url) {
  std::string plain = url.substr(0, url.find_first_of("?#"));
  const size_t host = plain.find("://") + 3;
  const size_t end = std::min(plain.find('/', host), plain.size());
  const size_t at = plain.rfind('@', end);
  if (at != std::string::npos && at >= host) plain.erase(host, at + 1 - host);
  return plain;
}

/// A file without a name in $TMPDIR: it goes with the process.
Result<int> open_unnamed(const std::string& what) {
  const char* directory = std::getenv("TMPDIR");
  std::string path = fmt::format("{}/lorry-XXXXXX", directory && *directory ? directory : "/tmp");
  const int fd = ::mkstemp(path.data());
  if (fd < 0) {
    return unavailable(fmt::format("{}: no temporary file in {}: {}", what,
                                   path.substr(0, path.rfind('/')), std::strerror(errno)));
  }
  ::unlink(path.c_str());
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  return fd;
}

/// A resource that cannot be read by range, fetched whole when it is first opened.
class Spool {
 public:
  Spool(std::string url, std::string name) : url_(std::move(url)), name_(std::move(name)) {}
  ~Spool() {
    if (fd_ >= 0) ::close(fd_);
  }
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  Result<std::shared_ptr<arrow::io::RandomAccessFile>> open() {
    LORRY_TRY(fetch());
    const int copy = ::dup(fd_);
    if (copy < 0) return unavailable(fmt::format("{}: {}", name_, std::strerror(errno)));
    LORRY_ASSIGN(auto file, store::from_arrow(arrow::io::ReadableFile::Open(copy), name_));
    return std::shared_ptr<arrow::io::RandomAccessFile>(std::move(file));
  }

  Result<> fetch() {
    const std::lock_guard lock(mutex_);
    if (fetched_) return {};
    if (fd_ < 0) {
      LORRY_ASSIGN(fd_, open_unnamed(name_));
    }
    net::Request request;
    request.url = url_;
    request.what = name_;
    request.on_head = [this](const net::Response&) { return rewind(); };
    request.on_data = [this](std::string_view piece) { return write(piece); };
    LORRY_ASSIGN(const auto response, net::Client::shared().send(std::move(request)));
    if (!response.ok()) return unavailable(fmt::format("{}: HTTP {}", name_, response.status));
    version_ = std::string(
        response.header("etag").value_or(response.header("last-modified").value_or("")));
    fetched_ = true;
    return {};
  }
  int64_t size() const { return size_; }
  const std::string& version() const { return version_; }

 private:
  /// An earlier try may have written something.
  Result<> rewind() {
    size_ = 0;
    if (::ftruncate(fd_, 0) == 0) return {};
    return unavailable(fmt::format("{}: {}", name_, std::strerror(errno)));
  }

  Result<> write(std::string_view piece) {
    while (!piece.empty()) {
      const ssize_t n = ::pwrite(fd_, piece.data(), piece.size(), size_);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        return unavailable(
            fmt::format("{}: cannot keep {} bytes of it in the temporary folder: {}; "
                        "set TMPDIR to a larger one",
                        name_, size_ + int64_t(piece.size()), std::strerror(errno)));
      }
      size_ += n;
      piece.remove_prefix(size_t(n));
    }
    return {};
  }

  const std::string url_, name_;
  std::mutex mutex_;
  int fd_ = -1;
  int64_t size_ = 0;
  std::string version_;
  bool fetched_ = false;
};

Error explain(const std::string& name, const net::Response& response) {
  if (response.status == 404 || response.status == 410) {
    return not_found(fmt::format("{}: there is no such file (HTTP {})", name, response.status));
  }
  if (response.status == 401 || response.status == 403) {
    return invalid_input(
        fmt::format("{}: the server does not let us read it (HTTP {})", name, response.status));
  }
  return unavailable(fmt::format("{}: HTTP {}", name, response.status));
}

}  // namespace

Result<> add_url_file(const std::string& url, data::FoundFiles& found) {
  data::SourceFile file;
  file.path = plain_url(url);
  LORRY_ASSIGN(file.format, format_of_named(file.path));
  const auto words = [name = file.path](const net::Response& response) {
    return explain(name, response);
  };
  auto opened = net::open_http_file(net::Client::shared(), url, {}, words);
  if (opened.ok()) {
    file.size = opened->info.size;
    file.version = opened->info.etag.empty() ? opened->info.last_modified : opened->info.etag;
    file.remote = true;
    file.open = [source = net::keep_small(
                     opened->source)]() -> Result<std::shared_ptr<arrow::io::RandomAccessFile>> {
      return net::open_range_file(source);
    };
  } else if (opened.error().kind == ErrorKind::kUnsupported) {
    const auto spool = std::make_shared<Spool>(url, file.path);
    LORRY_TRY(spool->fetch());
    file.size = spool->size();
    file.version = spool->version();
    file.open = [spool] { return spool->open(); };
  } else {
    return std::move(opened).error();
  }
  found.files.push_back(std::move(file));
  return {};
}

}  // namespace lorry::sources

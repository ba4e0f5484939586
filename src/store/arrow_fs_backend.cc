#include "store/arrow_fs_backend.h"

#include <arrow/buffer.h>
#include <arrow/filesystem/azurefs.h>
#include <arrow/filesystem/filesystem.h>
#include <arrow/filesystem/gcsfs.h>
#include <arrow/io/interfaces.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>

#include "net/arrow_status.h"
#include "net/ranges.h"
#include "store/arrow_error.h"
#include "store/hashing_stream.h"

namespace lorry::store {
namespace {

namespace af = arrow::fs;

constexpr char kTemporaryDir[] = ".lorry-tmp";
constexpr double kRetrySeconds = 120;
/// The first request tells of wrong names and missing keys: that should not take long.
constexpr double kProbeSeconds = 10;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

/// An object that is written beside its name and copied there when it is whole: Arrow's streams
/// show what was written so far (Azure), or do when they are given up (Google).
class FsPending final : public PendingObject {
 public:
  FsPending(std::shared_ptr<af::FileSystem> fs, std::string temporary, std::string target,
            std::string name, std::shared_ptr<arrow::io::OutputStream> out)
      : fs_(std::move(fs)),
        temporary_(std::move(temporary)),
        target_(std::move(target)),
        name_(std::move(name)),
        stream_(std::make_shared<HashingStream>(std::move(out))) {}
  ~FsPending() override { abandon(); }

  arrow::io::OutputStream& stream() override { return *stream_; }

  Result<> commit(const Guard& guard) override {
    auto status = stream_->Close();
    if (auto consent = ask(guard); status.ok() && !consent.ok()) {
      abandon();
      return consent;
    }
    if (status.ok()) status = fs_->CopyFile(temporary_, target_);
    if (!status.ok()) {
      abandon();
      return from_arrow(status, "cannot write " + name_);
    }
    abandon();  // of the temporary object
    auto info = fs_->GetFileInfo(target_);
    if (!info.ok()) return from_arrow(info.status(), name_);
    if (info->size() == size()) return {};
    return corrupt_data(
        fmt::format("{}: {} bytes were written, the store has {}", name_, size(), info->size()));
  }

  void abandon() override {
    if (done_) return;
    done_ = true;
    if (!stream_->closed()) (void)stream_->Close();
    (void)fs_->DeleteFile(temporary_);
  }

  int64_t size() const override { return stream_->size(); }
  uint32_t crc32c() const override { return stream_->crc32c(); }

 private:
  std::shared_ptr<af::FileSystem> fs_;
  const std::string temporary_, target_, name_;
  std::shared_ptr<HashingStream> stream_;
  bool done_ = false;
};

class FsSource final : public net::RangeSource {
 public:
  FsSource(std::shared_ptr<arrow::io::RandomAccessFile> file, int64_t size, std::string name)
      : file_(std::move(file)), size_(size), name_(std::move(name)) {}

  int64_t size() const override { return size_; }
  const std::string& name() const override { return name_; }
  Result<> read(int64_t offset, std::span<char> into) override {
    auto got = file_->ReadAt(offset, int64_t(into.size()), into.data());
    if (!got.ok()) return from_arrow(got.status(), name_);
    if (*got == int64_t(into.size())) return {};
    return unavailable(fmt::format("{}: {} of {} bytes came", name_, *got, into.size()));
  }

 private:
  std::shared_ptr<arrow::io::RandomAccessFile> file_;
  const int64_t size_;
  const std::string name_;
};

class FsBackend final : public Backend {
 public:
  /// `root`: "bucket" or "bucket/prefix".
  FsBackend(std::shared_ptr<af::FileSystem> fs, std::string scheme, std::string root)
      : fs_(std::move(fs)), scheme_(std::move(scheme)), root_(std::move(root)) {}

  Result<> probe() const {
    const std::string bucket = root_.substr(0, root_.find('/'));
    auto info = fs_->GetFileInfo(bucket);
    if (!info.ok()) return from_arrow(info.status(), scheme_ + "://" + bucket);
    if (info->type() != af::FileType::NotFound) return {};
    return not_found(fmt::format("there is no bucket {}://{}; create it first", scheme_, bucket));
  }

  Result<std::optional<ObjectInfo>> stat(const std::string& path) const override {
    if (path.empty()) return std::optional(ObjectInfo{path, 0, true, ""});
    auto info = fs_->GetFileInfo(inside(path));
    if (!info.ok()) return from_arrow(info.status(), name_of(path));
    if (info->type() == af::FileType::NotFound) return std::optional<ObjectInfo>();
    return std::optional(info_of(*info));
  }

  Result<std::vector<ObjectInfo>> list(const std::string& path, bool recursive) const override {
    af::FileSelector selector;
    selector.base_dir = inside(path);
    selector.allow_not_found = true;
    // Google's directories are those of the names alone, which Arrow shows only of what is inside.
    const bool fold = scheme_ == "gs" && !recursive;
    selector.recursive = recursive || fold;
    auto infos = fs_->GetFileInfo(selector);
    if (!infos.ok()) return from_arrow(infos.status(), name_of(path));
    std::vector<ObjectInfo> found;
    for (const auto& info : *infos) {
      ObjectInfo mine = info_of(info);
      if (mine.path.starts_with(kTemporaryDir)) continue;
      if (fold) mine = child_of(path, std::move(mine));
      if (!recursive || !mine.is_directory) found.push_back(std::move(mine));
    }
    std::sort(found.begin(), found.end(),
              [](const auto& a, const auto& b) { return a.path < b.path; });
    const auto same = [](const auto& a, const auto& b) { return a.path == b.path; };
    found.erase(std::unique(found.begin(), found.end(), same), found.end());
    return found;
  }

  Result<std::shared_ptr<arrow::io::RandomAccessFile>> open_input(
      const std::string& path) const override {
    LORRY_ASSIGN(auto source, open_source(path));
    return net::open_range_file(std::move(source));
  }

  Result<std::shared_ptr<arrow::io::InputStream>> open_stream(const std::string& path,
                                                              int64_t offset) const override {
    LORRY_ASSIGN(auto source, open_source(path));
    if (offset > source->size()) {
      return invalid_input(
          fmt::format("{}: has {} bytes, none at {}", name_of(path), source->size(), offset));
    }
    return net::open_range_stream(std::move(source), offset);
  }

  Result<std::unique_ptr<PendingObject>> create(const std::string& path) const override {
    static std::atomic<int64_t> serial = 0;
    char host[256] = {};
    (void)::gethostname(host, sizeof(host) - 1);
    const std::string temporary =
        inside(fmt::format("{}/{}.{}.{}", kTemporaryDir, host, ::getpid(), serial++));
    auto out = fs_->OpenOutputStream(temporary);
    if (!out.ok()) return from_arrow(out.status(), "cannot write " + name_of(path));
    return std::unique_ptr<PendingObject>(
        std::make_unique<FsPending>(fs_, temporary, inside(path), name_of(path), *out));
  }

  Result<> remove(const std::string& path) const override {
    LORRY_ASSIGN(const auto info, stat(path));
    if (!info) return {};
    if (!info->is_directory) {
      LORRY_ARROW_TRY(fs_->DeleteFile(inside(path)), "cannot remove " + name_of(path));
      return {};
    }
    LORRY_ASSIGN(const auto found, list(path, true));
    for (const auto& object : found) LORRY_TRY(remove(object.path));
    (void)fs_->DeleteDir(inside(path));  // the mark of the directory, where there is one
    return {};
  }

 private:
  /// The direct child of `path` that is, or holds, `info`.
  static ObjectInfo child_of(const std::string& path, ObjectInfo info) {
    const size_t slash = info.path.find('/', path.empty() ? 0 : path.size() + 1);
    if (slash == std::string::npos) return info;
    return {info.path.substr(0, slash), 0, true, ""};
  }

  std::string inside(const std::string& path) const { return join_path(root_, path); }
  std::string name_of(const std::string& path) const {
    return fmt::format("{}://{}", scheme_, inside(path));
  }

  ObjectInfo info_of(const af::FileInfo& info) const {
    const bool directory = info.type() == af::FileType::Directory;
    std::string path = info.path().substr(std::min(info.path().size(), root_.size() + 1));
    while (path.ends_with('/')) path.pop_back();
    if (directory) return {std::move(path), 0, true, ""};
    const auto changed = info.mtime().time_since_epoch();
    return {std::move(path), info.size(), false, std::to_string(changed.count()),
            std::chrono::duration_cast<std::chrono::milliseconds>(changed).count()};
  }

  Result<std::shared_ptr<net::RangeSource>> open_source(const std::string& path) const {
    auto info = fs_->GetFileInfo(inside(path));
    if (!info.ok()) return from_arrow(info.status(), name_of(path));
    if (info->type() == af::FileType::NotFound) {
      return not_found(name_of(path) + " is not there");
    }
    if (!info->IsFile()) return invalid_input(name_of(path) + " is a directory, not an object");
    auto file = fs_->OpenInputFile(*info);
    if (!file.ok()) return from_arrow(file.status(), name_of(path));
    return std::shared_ptr<net::RangeSource>(
        std::make_shared<FsSource>(*file, info->size(), name_of(path)));
  }

  std::shared_ptr<af::FileSystem> fs_;
  const std::string scheme_, root_;
};

std::unique_ptr<FsBackend> backend_over(std::shared_ptr<af::FileSystem> fs, std::string scheme,
                                        std::string_view rest) {
  while (rest.ends_with('/')) rest.remove_suffix(1);
  return std::make_unique<FsBackend>(std::move(fs), std::move(scheme), std::string(rest));
}

/// `seconds`: how long a request is tried again.
Result<std::unique_ptr<FsBackend>> gs_backend(af::GcsOptions options, double seconds,
                                              std::string_view rest) {
  options.retry_limit_seconds = seconds;
  auto fs = af::GcsFileSystem::Make(options);
  if (!fs.ok()) return from_arrow(fs.status(), fmt::format("gs://{}", rest));
  return backend_over(*fs, "gs", rest);
}

/// Google's own words for missing keys fill half a screen.
Error explain_gs(const Error& error, std::string_view rest) {
  if (error.message.find("access token") == std::string::npos) return error;
  return usage_error(fmt::format(
      "gs://{}: no credentials for Google Cloud; set GOOGLE_APPLICATION_CREDENTIALS to a key file, "
      "or run gcloud auth application-default login, or give this machine a service account",
      rest));
}

Result<> check_name(std::string_view scheme, std::string_view rest) {
  if (!rest.empty() && rest.front() != '/') return {};
  return usage_error(
      fmt::format("{0}://{1}: no bucket's name; write {0}://NAME[/prefix]", scheme, rest));
}

/// "AccountName=a;AccountKey=b==;..." as Azure's portal gives it.
std::map<std::string, std::string> parse_connection(std::string_view text) {
  std::map<std::string, std::string> settings;
  while (!text.empty()) {
    const std::string_view part = text.substr(0, text.find(';'));
    text.remove_prefix(std::min(part.size() + 1, text.size()));
    const size_t equals = part.find('=');
    if (equals == std::string_view::npos) continue;
    settings.emplace(part.substr(0, equals), part.substr(equals + 1));
  }
  return settings;
}

/// The endpoint of an emulator or of a private cloud: "http://host:port/account".
void set_endpoint(const std::string& endpoint, af::AzureOptions& options) {
  const size_t colon = endpoint.find("://");
  if (colon == std::string::npos) return;
  options.blob_storage_scheme = options.dfs_storage_scheme = endpoint.substr(0, colon);
  const std::string rest = endpoint.substr(colon + 3);
  const std::string host = rest.substr(0, rest.find('/'));
  const bool names_account = host.starts_with(options.account_name + ".");
  const std::string authority = names_account ? host.substr(options.account_name.size()) : host;
  options.blob_storage_authority = options.dfs_storage_authority = authority;
}

}  // namespace

Result<std::unique_ptr<Backend>> open_gs_backend(std::string_view rest) {
  LORRY_TRY(check_name("gs", rest));
  std::string emulator = environment("CLOUD_STORAGE_EMULATOR_ENDPOINT");
  const bool anonymous = !emulator.empty() || environment("LORRY_GS_ANONYMOUS") == "1";
  auto options = anonymous ? af::GcsOptions::Anonymous() : af::GcsOptions::Defaults();
  if (const size_t colon = emulator.find("://"); colon != std::string::npos) {
    options.scheme = emulator.substr(0, colon);
    options.endpoint_override = emulator.substr(colon + 3);
  }
  LORRY_ASSIGN(const auto first, gs_backend(options, kProbeSeconds, rest));
  if (const auto probed = first->probe(); !probed.ok()) return explain_gs(probed.error(), rest);
  LORRY_ASSIGN(auto backend, gs_backend(options, kRetrySeconds, rest));
  return std::unique_ptr<Backend>(std::move(backend));
}

Result<std::unique_ptr<Backend>> open_az_backend(std::string_view rest) {
  LORRY_TRY(check_name("az", rest));
  auto connection = parse_connection(environment("AZURE_STORAGE_CONNECTION_STRING"));
  af::AzureOptions options;
  options.account_name = connection["AccountName"];
  if (options.account_name.empty()) options.account_name = environment("AZURE_STORAGE_ACCOUNT");
  if (options.account_name.empty()) {
    return usage_error(fmt::format(
        "az://{}: whose container? set AZURE_STORAGE_ACCOUNT (and AZURE_STORAGE_KEY, unless this "
        "machine has a managed identity)",
        rest));
  }
  std::string key = connection["AccountKey"], token = connection["SharedAccessSignature"];
  if (key.empty()) key = environment("AZURE_STORAGE_KEY");
  if (token.empty()) token = environment("AZURE_STORAGE_SAS_TOKEN");
  set_endpoint(connection["BlobEndpoint"], options);
  const auto status = !key.empty()     ? options.ConfigureAccountKeyCredential(key)
                      : !token.empty() ? options.ConfigureSASCredential(token)
                                       : options.ConfigureDefaultCredential();
  if (!status.ok()) return from_arrow(status, fmt::format("az://{}", rest));
  auto fs = af::AzureFileSystem::Make(options);
  if (!fs.ok()) return from_arrow(fs.status(), fmt::format("az://{}", rest));
  auto backend = backend_over(*fs, "az", rest);
  LORRY_TRY(backend->probe());
  return std::unique_ptr<Backend>(std::move(backend));
}

}  // namespace lorry::store

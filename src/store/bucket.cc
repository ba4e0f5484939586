#include "store/bucket.h"

#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "store/arrow_error.h"
#include "store/arrow_fs_backend.h"
#include "store/backend.h"
#include "store/local_backend.h"
#include "store/s3_backend.h"

namespace lorry::store {
namespace {

/// Every path that a caller names goes through here, so that no data set or model name, whoever
/// chose it, reaches outside the bucket.
Result<std::string> checked(std::string_view path, bool may_be_root) {
  if (path.empty()) {
    if (may_be_root) return std::string();
    return invalid_input("an object's name is empty");
  }
  if (path.find('\0') != std::string_view::npos || path.front() == '/' || path.back() == '/') {
    return invalid_input(fmt::format("\"{}\" is not a path inside the bucket", path));
  }
  size_t begin = 0;
  while (begin <= path.size()) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") {
      return invalid_input(
          fmt::format("\"{}\" is not a path inside the bucket: it has a part \"{}\"", path, part));
    }
    begin = end + 1;
  }
  return std::string(path);
}

/// A path that is only read. Keys of an object store are names, in which others may have left empty
/// parts ("a//b"); as a path of this machine they would be another file's name.
Result<std::string> checked_for_reading(const Backend& backend, std::string_view path,
                                        bool may_be_root) {
  if (backend.is_local()) return checked(path, may_be_root);
  std::string single;
  for (const char c : path) {
    if (c != '/' || (!single.empty() && single.back() != '/')) single += c;
  }
  if (single.ends_with('/')) single.pop_back();
  LORRY_TRY(checked(single, may_be_root));
  return std::string(path);
}

Result<std::unique_ptr<Backend>> open_backend(const std::string& uri, bool create) {
  if (uri.empty()) return invalid_input("the bucket's name is empty");
  const size_t colon = uri.find("://");
  if (colon == std::string::npos) return open_local_backend(uri, create);
  const std::string scheme = uri.substr(0, colon);
  if (scheme == "file") return open_local_backend(uri.substr(colon + 3), create);
  if (scheme == "s3" || scheme == "s3a") return open_s3_backend(uri.substr(colon + 3));
  if (scheme == "gs" || scheme == "gcs") return open_gs_backend(uri.substr(colon + 3));
  if (scheme == "az") return open_az_backend(uri.substr(colon + 3));
  return unsupported(fmt::format(
      "buckets at {}:// are not supported; write a directory, s3://, gs:// or az://", scheme));
}

}  // namespace

struct ObjectWriter::Impl {
  std::shared_ptr<const Backend> backend;  ///< outlives `pending`
  Guard guard;
  std::string path;
  std::unique_ptr<PendingObject> pending;
  int64_t size = 0;
  uint32_t crc32c = 0;
};

ObjectWriter::ObjectWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ObjectWriter::~ObjectWriter() {
  if (impl_->pending) impl_->pending->abandon();
}
arrow::io::OutputStream& ObjectWriter::stream() { return impl_->pending->stream(); }

Result<> ObjectWriter::write(std::string_view bytes) {
  auto status = stream().Write(bytes.data(), int64_t(bytes.size()));
  if (!status.ok()) return from_arrow(status, impl_->path);
  return {};
}

Result<> ObjectWriter::commit() {
  auto pending = std::move(impl_->pending);
  LORRY_TRY(pending->commit(impl_->guard));
  impl_->size = pending->size();
  impl_->crc32c = pending->crc32c();
  return {};
}

int64_t ObjectWriter::size() const { return impl_->size; }
uint32_t ObjectWriter::crc32c() const { return impl_->crc32c; }

struct Bucket::Impl {
  std::string uri;
  std::shared_ptr<const Backend> backend;
  Guard guard;
};

Bucket::Bucket(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Bucket::~Bucket() = default;

Result<std::shared_ptr<Bucket>> Bucket::open(const std::string& uri, bool create) {
  LORRY_ASSIGN(auto backend, open_backend(uri, create));
  auto impl = std::make_unique<Impl>();
  impl->uri = uri;
  impl->backend = std::move(backend);
  return std::shared_ptr<Bucket>(new Bucket(std::move(impl)));
}

std::shared_ptr<Bucket> Bucket::guarded(Guard guard) const {
  return std::shared_ptr<Bucket>(
      new Bucket(std::make_unique<Impl>(Impl{impl_->uri, impl_->backend, std::move(guard)})));
}

const std::string& Bucket::uri() const { return impl_->uri; }
bool Bucket::is_local() const { return impl_->backend->is_local(); }

Result<std::optional<ObjectInfo>> Bucket::stat(std::string_view path) const {
  LORRY_ASSIGN(const std::string inside, checked_for_reading(*impl_->backend, path, true));
  return impl_->backend->stat(inside);
}

Result<bool> Bucket::exists(std::string_view path) const {
  LORRY_ASSIGN(auto info, stat(path));
  return info.has_value();
}

Result<std::vector<ObjectInfo>> Bucket::list(std::string_view path, bool recursive) const {
  LORRY_ASSIGN(const std::string inside, checked_for_reading(*impl_->backend, path, true));
  return impl_->backend->list(inside, recursive);
}

Result<std::string> Bucket::read(std::string_view path) const {
  LORRY_ASSIGN(const std::string inside, checked_for_reading(*impl_->backend, path, false));
  return impl_->backend->read(inside);
}

Result<std::shared_ptr<arrow::io::RandomAccessFile>> Bucket::open_input(
    std::string_view path) const {
  LORRY_ASSIGN(const std::string inside, checked_for_reading(*impl_->backend, path, false));
  return impl_->backend->open_input(inside);
}

Result<std::shared_ptr<arrow::io::InputStream>> Bucket::open_stream(std::string_view path,
                                                                    int64_t offset) const {
  LORRY_ASSIGN(const std::string inside, checked_for_reading(*impl_->backend, path, false));
  if (offset < 0) return invalid_input(fmt::format("{}: cannot read from byte {}", path, offset));
  return impl_->backend->open_stream(inside, offset);
}

Result<std::shared_ptr<arrow::io::RandomAccessFile>> Bucket::open_mapped(
    std::string_view path) const {
  LORRY_ASSIGN(const std::string inside, checked_for_reading(*impl_->backend, path, false));
  return impl_->backend->open_mapped(inside);
}

Result<std::unique_ptr<ObjectWriter>> Bucket::create(std::string_view path) const {
  LORRY_ASSIGN(const std::string inside, checked(path, false));
  LORRY_ASSIGN(auto pending, impl_->backend->create(inside));
  auto impl = std::make_unique<ObjectWriter::Impl>();
  impl->backend = impl_->backend;
  impl->guard = impl_->guard;
  impl->path = inside;
  impl->pending = std::move(pending);
  return std::unique_ptr<ObjectWriter>(new ObjectWriter(std::move(impl)));
}

Result<> Bucket::write(std::string_view path, std::string_view bytes) const {
  LORRY_ASSIGN(auto writer, create(path));
  LORRY_TRY(writer->write(bytes));
  return writer->commit();
}

Result<> Bucket::move(std::string_view from, std::string_view to) const {
  LORRY_ASSIGN(const std::string source, checked(from, false));
  LORRY_ASSIGN(const std::string target, checked(to, false));
  return impl_->backend->move(source, target, impl_->guard);
}

Result<> Bucket::remove(std::string_view path) const {
  LORRY_ASSIGN(const std::string inside, checked(path, false));
  LORRY_TRY(ask(impl_->guard));
  return impl_->backend->remove(inside);
}

Result<std::optional<Json>> Bucket::read_info(std::string_view dir) const {
  const std::string path = join_path(dir, "info.json");
  auto text = read(path);
  if (!text.ok()) {
    if (text.error().kind == ErrorKind::kNotFound) return std::optional<Json>();
    return std::move(text).error();
  }
  auto info = parse_json(*text, path);
  if (!info.ok()) return corrupt_data(info.error().message + "; run the stage again with --fresh");
  if (!info->is_object()) return corrupt_data(path + ": not a JSON object");
  return std::optional<Json>(std::move(*info));
}

Result<> Bucket::write_info(std::string_view dir, const Json& info) const {
  return write(join_path(dir, "info.json"), dump_json(info, 2) + "\n");
}

std::string join_path(std::string_view a, std::string_view b) {
  if (a.empty()) return std::string(b);
  if (b.empty()) return std::string(a);
  return fmt::format("{}/{}", a, b);
}

}  // namespace lorry::store

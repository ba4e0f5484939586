#include "store/s3_backend.h"

#include <arrow/io/interfaces.h>
#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <ctime>
#include <mutex>

#include "net/io_pool.h"
#include "store/s3_client.h"
#include "store/s3_object.h"
#include "store/s3_upload.h"
#include "store/s3_xml.h"

namespace lorry::store {
namespace {

/// What one CopyObject may take: 5 GiB.
constexpr int64_t kMostCopied = int64_t{5} << 30;

struct Page {
  std::vector<ObjectInfo> objects;    ///< path: the whole key
  std::vector<std::string> prefixes;  ///< whole, with the slash at the end
  std::string next;                   ///< continuation token; empty at the end
};

/// A key in an answer: URL-encoded, with '+' for a space, if the answer says so. Not all servers do
/// what they are asked.
std::string decode_key(std::string key, bool encoded) {
  if (!encoded) return key;
  std::replace(key.begin(), key.end(), '+', ' ');
  return net::url_decode(key);
}

/// "2026-11-22T21:52:15.123Z" as milliseconds since 1970; 0 if it is not that.
int64_t parse_time(const std::string& text) {
  tm time{};
  const char* rest = ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &time);
  if (rest == nullptr) return 0;
  const double fraction = *rest == '.' ? std::strtod(rest, nullptr) : 0;
  return int64_t(::timegm(&time)) * 1000 + int64_t(fraction * 1000);
}

/// One answer of ListObjectsV2.
Page parse_page(const std::string& xml) {
  Page page;
  const bool encoded = xml_text(xml, "EncodingType") == "url";
  for (const auto element : xml_elements(xml, "Contents")) {
    ObjectInfo info;
    info.path = decode_key(xml_text(element, "Key").value_or(""), encoded);
    info.size = std::strtoll(xml_text(element, "Size").value_or("0").c_str(), nullptr, 10);
    info.etag = xml_text(element, "ETag").value_or("");
    info.modified_ms = parse_time(xml_text(element, "LastModified").value_or(""));
    page.objects.push_back(std::move(info));
  }
  for (const auto element : xml_elements(xml, "CommonPrefixes")) {
    page.prefixes.push_back(decode_key(xml_text(element, "Prefix").value_or(""), encoded));
  }
  if (xml_text(xml, "IsTruncated") == "true") {
    page.next = xml_text(xml, "NextContinuationToken").value_or("");
  }
  return page;
}

/// Runs `task(i)` for each i below `count` on several connections; the first error.
Result<> for_each_in_parallel(size_t count, const std::function<Result<>(size_t)>& task) {
  struct Shared {
    std::mutex mutex;
    std::condition_variable ended;
    size_t next = 0, running = 0;
    Result<> result;
  };
  auto shared = std::make_shared<Shared>();
  const auto work = [shared, count, &task] {
    std::unique_lock lock(shared->mutex);
    while (shared->next < count && shared->result.ok()) {
      const size_t i = shared->next++;
      lock.unlock();
      auto result = task(i);
      lock.lock();
      if (!result.ok() && shared->result.ok()) shared->result = std::move(result);
    }
    if (--shared->running == 0) shared->ended.notify_all();
  };
  shared->running = std::min<size_t>(count, 16);
  if (count == 0) return {};
  for (size_t i = 1, n = shared->running; i < n; ++i) net::run_in_background(work);
  work();
  std::unique_lock lock(shared->mutex);
  shared->ended.wait(lock, [&] { return shared->running == 0; });
  return shared->result;
}

class S3Backend final : public Backend {
 public:
  S3Backend(std::shared_ptr<const S3Client> client, std::string prefix)
      : client_(std::move(client)), prefix_(std::move(prefix)) {}

  /// Is the bucket there, and may we?
  Result<> probe() const {
    LORRY_TRY(list_page(prefix_.empty() ? "" : prefix_ + "/", "", "/", 1));
    return {};
  }

  Result<std::optional<ObjectInfo>> stat(const std::string& path) const override {
    if (!path.empty()) {
      LORRY_ASSIGN(auto head, head_object(*client_, key_of(path)));
      if (head) {
        return std::optional(ObjectInfo{path, head->size, false, std::move(head->etag)});
      }
      LORRY_ASSIGN(const auto page, list_page(key_of(path) + "/", "", "", 1));
      if (page.objects.empty()) return std::optional<ObjectInfo>();
    }
    return std::optional(ObjectInfo{path, 0, true, ""});
  }

  Result<std::vector<ObjectInfo>> list(const std::string& path, bool recursive) const override {
    const std::string under = key_of(path).empty() ? "" : key_of(path) + "/";
    const size_t drop = prefix_.empty() ? 0 : prefix_.size() + 1;
    std::vector<ObjectInfo> found;
    std::string token;
    do {
      LORRY_ASSIGN(auto page, list_page(under, token, recursive ? "" : "/", 1000));
      for (auto& info : page.objects) {
        if (info.path.ends_with('/')) continue;  // the mark of an empty directory
        info.path.erase(0, drop);
        found.push_back(std::move(info));
      }
      for (auto& dir : page.prefixes) {
        if (dir.size() <= under.size() + 1) continue;
        found.push_back({dir.substr(drop, dir.size() - drop - 1), 0, true, ""});
      }
      token = std::move(page.next);
    } while (!token.empty());
    std::sort(found.begin(), found.end(),
              [](const auto& a, const auto& b) { return a.path < b.path; });
    return found;
  }

  Result<std::string> read(const std::string& path) const override {
    return read_object(*client_, key_of(path));
  }

  Result<std::shared_ptr<arrow::io::RandomAccessFile>> open_input(
      const std::string& path) const override {
    LORRY_ASSIGN(auto head, head_object(*client_, key_of(path)));
    if (!head) return not_found(client_->name_of(key_of(path)) + " is not there");
    return net::open_range_file(open_object(client_, key_of(path), std::move(*head)));
  }

  Result<std::shared_ptr<arrow::io::InputStream>> open_stream(const std::string& path,
                                                              int64_t offset) const override {
    return stream_object(client_, key_of(path), offset);
  }

  Result<std::unique_ptr<PendingObject>> create(const std::string& path) const override {
    return start_upload(client_, key_of(path));
  }

  Result<> remove(const std::string& path) const override {
    LORRY_TRY(remove_key(key_of(path)));
    std::string last;
    for (;;) {
      LORRY_ASSIGN(const auto page, list_page(key_of(path) + "/", "", "", 1000));
      if (page.objects.empty()) return {};
      if (page.objects.front().path == last) {
        return unavailable(client_->name_of(last) + ": is still listed after it was removed");
      }
      last = page.objects.front().path;
      LORRY_TRY(for_each_in_parallel(page.objects.size(),
                                     [&](size_t i) { return remove_key(page.objects[i].path); }));
    }
  }

  Result<> move(const std::string& from, const std::string& to, const Guard& guard) const override {
    LORRY_ASSIGN(const bool copied, copy_object(from, to, guard));
    if (!copied) return Backend::move(from, to, guard);
    LORRY_TRY(ask(guard));
    return remove_key(key_of(from));
  }

 private:
  /// False: the server cannot copy it by itself.
  Result<bool> copy_object(const std::string& from, const std::string& to,
                           const Guard& guard) const {
    LORRY_ASSIGN(const auto head, head_object(*client_, key_of(from)));
    if (!head) return not_found(client_->name_of(key_of(from)) + " is not there");
    if (head->size > kMostCopied) return false;
    LORRY_TRY(ask(guard));
    S3Request request;
    request.method = "PUT";
    request.key = key_of(to);
    request.headers = {{"x-amz-copy-source", fmt::format("/{}/{}", client_->place().bucket,
                                                         net::url_encode(key_of(from), "/"))}};
    request.guard = guard;
    LORRY_ASSIGN(const auto response, client_->send(request));
    // An answer of 200 may hold an error.
    return response.ok() && !xml_elements(response.body, "CopyObjectResult").empty();
  }

  std::string key_of(const std::string& path) const { return join_path(prefix_, path); }

  Result<Page> list_page(const std::string& prefix, const std::string& token,
                         const std::string& delimiter, int most) const {
    S3Request request;
    request.query = {{"list-type", "2"},
                     {"encoding-type", "url"},
                     {"prefix", prefix},
                     {"max-keys", std::to_string(most)}};
    if (!delimiter.empty()) request.query.emplace_back("delimiter", delimiter);
    if (!token.empty()) request.query.emplace_back("continuation-token", token);
    LORRY_ASSIGN(const auto response, client_->expect(request));
    if (xml_elements(response.body, "ListBucketResult").empty()) {
      return unavailable(client_->name_of("") +
                         ": the answer is no list of objects; is the endpoint an S3 server?");
    }
    return parse_page(response.body);
  }

  Result<> remove_key(const std::string& key) const {
    S3Request request;
    request.method = "DELETE";
    request.key = key;
    LORRY_ASSIGN(const auto response, client_->send(request));
    if (response.ok() || response.status == 404) return {};
    return client_->error_of(response, "DELETE", key);
  }

  std::shared_ptr<const S3Client> client_;
  std::string prefix_;  ///< without slashes at its ends
};

}  // namespace

Result<std::unique_ptr<Backend>> open_s3_backend(std::string_view rest) {
  const size_t slash = std::min(rest.find('/'), rest.size());
  const std::string bucket(rest.substr(0, slash));
  std::string_view prefix = rest.substr(slash);
  while (prefix.starts_with('/')) prefix.remove_prefix(1);
  while (prefix.ends_with('/')) prefix.remove_suffix(1);
  if (bucket.empty() || bucket.find_first_of(" ?#%:@") != std::string::npos) {
    return usage_error(fmt::format("s3://{}: no bucket's name; write s3://NAME[/prefix]", rest));
  }
  LORRY_ASSIGN(auto place, find_s3_place(bucket));
  auto client = std::make_shared<const S3Client>(std::move(place), standard_credentials());
  auto backend = std::make_unique<S3Backend>(std::move(client), std::string(prefix));
  LORRY_TRY(backend->probe());
  return std::unique_ptr<Backend>(std::move(backend));
}

}  // namespace lorry::store

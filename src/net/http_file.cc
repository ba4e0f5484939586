#include "net/http_file.h"

#include <fmt/format.h>

#include "net/content_range.h"

namespace lorry::net {
namespace {

bool is_weak(std::string_view etag) { return etag.starts_with("W/"); }

std::string header_or_empty(const Response& response, std::string_view name) {
  return std::string(response.header(name).value_or(""));
}

Error plain_error(const Response& response, const std::string& what) {
  const std::string message = fmt::format("{}: HTTP {}", what, response.status);
  if (response.status == 404 || response.status == 410) {
    return not_found(fmt::format("{}: not there (HTTP {})", what, response.status));
  }
  if (response.status == 401 || response.status == 403) {
    return invalid_input(message + "; the server does not let us read it");
  }
  return unavailable(message);
}

class UrlSource final : public RangeSource {
 public:
  UrlSource(const Client& client, std::string url, Headers headers, std::string name,
            HttpFileInfo info, std::function<Error(const Response&)> explain)
      : client_(client),
        url_(std::move(url)),
        headers_(std::move(headers)),
        name_(std::move(name)),
        info_(std::move(info)),
        explain_(std::move(explain)) {}

  int64_t size() const override { return info_.size; }
  const std::string& name() const override { return name_; }

  Result<> read(int64_t offset, std::span<char> into) override {
    if (into.empty()) return {};
    Request request;
    request.url = url_;
    request.what = name_;
    request.headers = headers_;
    const int64_t last = offset + int64_t(into.size()) - 1;
    request.headers.emplace_back("Range", fmt::format("bytes={}-{}", offset, last));
    pin(request.headers);
    request.into = into;
    request.exact = true;
    request.on_head = [&](const Response& head) { return check(head, offset, last); };
    LORRY_ASSIGN(const Response response, client_.send(std::move(request)));
    if (response.ok()) return {};
    if (response.status == 412 || response.status == 416) return changed();
    return explain_ ? explain_(response) : plain_error(response, name_);
  }

 private:
  /// If-Range would turn a changed resource into its whole new body, which `check` refuses early.
  void pin(Headers& headers) const {
    if (!info_.etag.empty() && !is_weak(info_.etag)) {
      headers.emplace_back("If-Range", info_.etag);
    } else if (!info_.last_modified.empty()) {
      headers.emplace_back("If-Unmodified-Since", info_.last_modified);
    }
  }

  Result<> check(const Response& head, int64_t first, int64_t last) const {
    const auto value = head.header("content-range");
    const auto range = value ? parse_content_range(*value) : std::nullopt;
    if (head.status == 200) return changed();
    if (!range || range->first != first || range->last != last) {
      return corrupt_data(fmt::format("{}: asked for bytes {}-{}, the server sends \"{}\"", name_,
                                      first, last, value.value_or("no Content-Range")));
    }
    const std::string etag = header_or_empty(head, "etag");
    const bool other = !etag.empty() && !info_.etag.empty() && etag != info_.etag;
    if (other || (range->total >= 0 && range->total != info_.size)) return changed();
    return {};
  }

  Error changed() const {
    return corrupt_data(name_ + ": changed on the server while it was read; run again");
  }

  const Client& client_;
  const std::string url_;
  const Headers headers_;
  const std::string name_;
  const HttpFileInfo info_;
  const std::function<Error(const Response&)> explain_;
};

}  // namespace

Result<HttpFile> open_http_file(const Client& client, std::string url, Headers headers,
                                std::function<Error(const Response&)> explain) {
  const std::string name = url.substr(0, url.find_first_of("?#"));
  Request request;
  request.url = url;
  request.what = name;
  request.headers = headers;
  request.headers.emplace_back("Range", "bytes=0-0");
  // A server without ranges begins to send everything; its head is enough to know.
  bool whole = false;
  request.on_head = [&](const Response& head) -> Result<> {
    whole = head.status == 200 && header_or_empty(head, "content-length") != "0";
    if (!whole) return {};
    return unsupported(name + ": the server does not answer requests for a part of it");
  };
  LORRY_ASSIGN(const Response response, client.send(std::move(request)));
  HttpFileInfo info;
  info.etag = header_or_empty(response, "etag");
  info.last_modified = header_or_empty(response, "last-modified");
  info.headers = response.headers;
  const auto range = parse_content_range(header_or_empty(response, "content-range"));
  if (response.status == 206 && range && range->total >= 0) {
    info.size = range->total;
  } else if (response.status == 416 || response.status == 200) {
    info.size = 0;  // no first byte: empty
  } else if (response.status == 206) {
    return unsupported(name + ": the server does not say how large it is");
  } else {
    return explain ? explain(response) : plain_error(response, name);
  }
  HttpFile file;
  file.info = info;
  file.source = std::make_shared<UrlSource>(client, std::move(url), std::move(headers), name,
                                            std::move(info), std::move(explain));
  return file;
}

}  // namespace lorry::net

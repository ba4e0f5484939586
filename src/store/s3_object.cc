#include "store/s3_object.h"

#include <arrow/io/interfaces.h>
#include <fmt/format.h>

#include <cstdlib>

#include "net/content_range.h"
#include "store/s3_checksum.h"

namespace lorry::store {
namespace {

/// Bytes that a stream asks for before it knows the size: most objects of a bucket are smaller.
constexpr int64_t kFirstRequest = 2 << 20;

std::string header_or_empty(const net::Response& response, std::string_view name) {
  return std::string(response.header(name).value_or(""));
}

/// Bytes of `head`'s body if the server says; -1 if not.
int64_t content_length(const net::Response& head) {
  const std::string value = header_or_empty(head, "content-length");
  return value.empty() ? -1 : std::strtoll(value.c_str(), nullptr, 10);
}

std::string byte_range(int64_t first, int64_t last) {
  return fmt::format("bytes={}-{}", first, last);
}

Error changed(const std::string& name) {
  return corrupt_data(name + ": was replaced while it was read; run again");
}

/// An answer without a body (of a HEAD) does not say why; a GET of one byte does.
Result<net::Response> with_reason(const S3Client& client, const std::string& key,
                                  net::Response response) {
  if (response.ok() || response.status == 404) return response;
  S3Request request;
  request.key = key;
  request.headers = {{"Range", "bytes=0-0"}};
  request.on_data = [](std::string_view) { return Result<>(); };
  LORRY_ASSIGN(auto told, client.send(request));
  return told.ok() || told.body.empty() ? std::move(response) : std::move(told);
}

class S3Object final : public net::RangeSource {
 public:
  S3Object(std::shared_ptr<const S3Client> client, std::string key, S3Head head)
      : client_(std::move(client)),
        key_(std::move(key)),
        name_(client_->name_of(key_)),
        head_(std::move(head)) {}

  int64_t size() const override { return head_.size; }
  const std::string& name() const override { return name_; }

  Result<> read(int64_t offset, std::span<char> into) override {
    if (into.empty()) return {};
    const int64_t last = offset + int64_t(into.size()) - 1;
    const bool whole = offset == 0 && int64_t(into.size()) == head_.size;
    S3Request request;
    request.key = key_;
    request.into = into;
    request.exact = true;
    if (whole) {
      request.headers.emplace_back("x-amz-checksum-mode", "ENABLED");
      request.retry_because = [into](const net::Response& response) {
        return wrong_checksum(response, {into.data(), into.size()});
      };
    } else {
      request.headers.emplace_back("Range", byte_range(offset, last));
    }
    if (!head_.etag.empty()) request.headers.emplace_back("If-Match", head_.etag);
    request.on_head = [&](const net::Response& head) { return check(head, offset, last, whole); };
    LORRY_ASSIGN(const auto response, client_->send(request));
    if (response.status == 412 || response.status == 416) return changed(name_);
    if (!response.ok()) return client_->error_of(response, "GET", key_);
    return {};
  }

 private:
  Result<> check(const net::Response& head, int64_t first, int64_t last, bool whole) const {
    const std::string etag = header_or_empty(head, "etag");
    if (!etag.empty() && !head_.etag.empty() && etag != head_.etag) return changed(name_);
    if (whole) {
      // Of the same version and yet of another length: the next try will tell.
      if (!etag.empty() && etag == head_.etag) return {};
      const int64_t length = content_length(head);
      return length < 0 || length == head_.size ? Result<>() : Result<>(changed(name_));
    }
    const std::string value = header_or_empty(head, "content-range");
    const auto range = net::parse_content_range(value);
    if (!range || range->first != first || range->last != last) {
      return corrupt_data(fmt::format("{}: asked for bytes {}-{}, the server sends \"{}\"", name_,
                                      first, last, value.empty() ? "no Content-Range" : value));
    }
    if (range->total >= 0 && range->total != head_.size) return changed(name_);
    return {};
  }

  const std::shared_ptr<const S3Client> client_;
  const std::string key_, name_;
  const S3Head head_;
};

/// What is wrong with the answer to the first request of a stream; another try may be right.
std::optional<std::string> wrong_first_part(const net::Response& response, std::string_view body,
                                            int64_t offset) {
  if (response.status == 200) return wrong_checksum(response, body);
  const auto range = net::parse_content_range(header_or_empty(response, "content-range"));
  if (response.status != 206 || !range || range->total < 0) return std::nullopt;
  const int64_t expected = std::min(kFirstRequest, range->total - offset);
  if (int64_t(body.size()) != expected)
    return fmt::format("{} of {} bytes came", body.size(), expected);
  return expected == range->total ? wrong_checksum(response, body) : std::nullopt;
}

}  // namespace

Result<std::optional<S3Head>> head_object(const S3Client& client, const std::string& key) {
  S3Request request;
  request.method = "HEAD";
  request.key = key;
  LORRY_ASSIGN(auto response, client.send(request));
  LORRY_ASSIGN(response, with_reason(client, key, std::move(response)));
  if (response.status == 404) {
    return std::optional<S3Head>();
  }
  if (!response.ok()) return client.error_of(response, "HEAD", key);
  const int64_t size = content_length(response);
  if (size < 0) {
    return unavailable(fmt::format("{}: the server does not say its size", client.name_of(key)));
  }
  return std::optional(S3Head{size, header_or_empty(response, "etag")});
}

Result<std::string> read_object(const S3Client& client, const std::string& key) {
  S3Request request;
  request.key = key;
  request.headers = {{"x-amz-checksum-mode", "ENABLED"}};
  request.retry_because = [](const net::Response& response) {
    return wrong_checksum(response, response.body);
  };
  LORRY_ASSIGN(auto response, client.expect(request));
  return std::move(response.body);
}

std::shared_ptr<net::RangeSource> open_object(std::shared_ptr<const S3Client> client,
                                              std::string key, S3Head head) {
  return std::make_shared<S3Object>(std::move(client), std::move(key), std::move(head));
}

Result<std::shared_ptr<arrow::io::InputStream>> stream_object(
    std::shared_ptr<const S3Client> client, const std::string& key, int64_t offset) {
  const std::string name = client->name_of(key);
  S3Request request;
  request.key = key;
  request.headers = {{"Range", byte_range(offset, offset + kFirstRequest - 1)},
                     {"x-amz-checksum-mode", "ENABLED"}};
  std::string first;
  request.on_head = [&](const net::Response& head) -> Result<> {
    first.clear();  // of an earlier try
    const int64_t length = content_length(head);
    if (head.status == 200 && length > kFirstRequest) {
      return unsupported(name + ": the server does not answer requests for a part of an object");
    }
    first.reserve(size_t(std::clamp<int64_t>(length, 0, kFirstRequest)));
    return {};
  };
  request.on_data = [&](std::string_view piece) {
    first.append(piece);
    return Result<>();
  };
  request.retry_because = [&](const net::Response& response) {
    return wrong_first_part(response, first, offset);
  };
  LORRY_ASSIGN(const auto response, client->send(request));
  S3Head head;
  head.etag = header_or_empty(response, "etag");
  const auto range = net::parse_content_range(header_or_empty(response, "content-range"));
  if (response.status == 416) {
    // An empty object has no first byte; neither has any at its end.
    LORRY_ASSIGN(auto found, head_object(*client, key));
    if (!found) return not_found(name + " is not there");
    if (offset > found->size) {
      return invalid_input(fmt::format("{}: has {} bytes, none at {}", name, found->size, offset));
    }
    head = std::move(*found);
    first.clear();
  } else if (!response.ok()) {
    return client->error_of(response, "GET", key);
  } else if (response.status == 200) {
    head.size = int64_t(first.size());
    first.erase(0, size_t(std::min(offset, head.size)));
  } else {
    if (!range || range->first != offset || range->total < 0) {
      return corrupt_data(name + ": the server's Content-Range is not what was asked for");
    }
    head.size = range->total;
  }
  auto object = open_object(std::move(client), key, std::move(head));
  return net::open_range_stream(std::move(object), offset, std::move(first));
}

}  // namespace lorry::store

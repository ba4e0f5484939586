// A URL as a file: ranged GETs pinned to one version of the resource.
#pragma once

#include <memory>
#include <string>

#include "net/http.h"
#include "net/ranges.h"

namespace lorry::net {

/// What a server said of a resource when it was opened.
struct HttpFileInfo {
  int64_t size = 0;
  std::string etag;           ///< as sent, quotes included; empty if the server sends none
  std::string last_modified;  ///< empty if the server sends none
  Headers headers;            ///< of the answer that decided the size, after redirects
};

struct HttpFile {
  HttpFileInfo info;
  std::shared_ptr<RangeSource> source;  ///< for open_range_file and open_range_stream
};

/// Opens `url` with one request for its first byte; `headers` (Authorization among them) go with
/// every request to its own host, and to no other it redirects to. Later reads carry If-Match (or
/// If-Range and If-Unmodified-Since) and check Content-Range: a resource that changed is corrupt
/// data. 404 and 410 are not found; other statuses are errors that `explain`, if given, words.
/// A server without ranges is unsupported.
Result<HttpFile> open_http_file(const Client& client, std::string url, Headers headers = {},
                                std::function<Error(const Response&)> explain = nullptr);

}  // namespace lorry::net

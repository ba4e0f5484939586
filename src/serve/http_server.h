// A small HTTP/1.1 server: keep-alive, streamed responses, limits, an orderly end.
//
// The header is free of Boost; the .cc is the one place that compiles it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace lorry::serve {

struct HttpRequest {
  std::string method;
  std::string path;  ///< percent-decoded, without host, query, doubled and trailing slashes
  std::string authorization;
  std::string body;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  ///< further ones
};

/// One request being answered. All methods but `post` are called on the connection's own strand:
/// in the handler, or in a function given to `post`. Answer with `respond`, or with `start_stream`,
/// `write` as often as needed, and `end`. What is said after the client has left is dropped.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual void respond(HttpResponse response) = 0;
  virtual void start_stream(std::string_view content_type) = 0;
  virtual void write(std::string_view bytes) = 0;
  virtual void end() = 0;
  /// Called once if the client leaves, or the server must stop, before the answer is complete.
  virtual void on_close(std::function<void()> callback) = 0;
  /// Runs `function` on the strand. From any thread.
  virtual void post(std::function<void()> function) = 0;
};

using HttpHandler =
    std::function<void(const HttpRequest& request, const std::shared_ptr<HttpExchange>& exchange)>;
/// The body of the server's own errors (a malformed request, one that is too large).
using HttpErrorBody = std::function<std::string(int status, std::string_view message)>;

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 8080;  ///< 0: a free one
  int threads = 2;
  int max_connections = 1024;  ///< open at once; one more is answered 503 and closed
  /// Pages of which origins may read the answers (CORS): "*" or "https://chat.example"; empty:
  /// none.
  std::vector<std::string> allowed_origins = {"*"};
  uint64_t max_body_bytes = 32u << 20;
  uint32_t max_header_bytes = 64u << 10;
  std::chrono::seconds idle_timeout{75};   ///< between requests of a connection
  std::chrono::seconds read_timeout{60};   ///< for the whole of a request
  std::chrono::seconds write_timeout{60};  ///< for each piece of an answer
};

/// Construct, `start`, and `stop` from the same thread.
class HttpServer {
 public:
  /// Binds and answers at once. Fails with the address and what to do if it cannot be bound.
  static Result<std::unique_ptr<HttpServer>> start(HttpOptions options, HttpHandler handler,
                                                   HttpErrorBody error_body);
  ~HttpServer();

  /// "127.0.0.1:8080"
  std::string address() const;
  int port() const;
  /// Takes no more connections, lets running requests end within `grace`, then closes all.
  void stop(std::chrono::milliseconds grace);

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lorry::serve

// One answer on its way to the client, and what browsers ask about it (CORS). Of http_server alone:
// Boost is in this header.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "serve/http_server.h"

namespace lorry::serve {

using Strand = boost::asio::strand<boost::asio::io_context::executor_type>;
using Request = boost::beast::http::request<boost::beast::http::string_body>;
using Headers = std::vector<std::pair<std::string, std::string>>;

/// The value of a header; empty if it is not there.
std::string_view text_of(const Request& request, boost::beast::http::field field);

/// Status line and headers, up to the body. `length_header`: a whole line, or nothing.
std::string response_head(const HttpResponse& response, bool keep_alive,
                          std::string_view length_header);

/// What lets a page of the request's origin read the answer; none where it may not.
/// Source: the Fetch standard, "HTTP-network-or-cache fetch", CORS protocol.
Headers cors_headers(const Request& request, const std::vector<std::string>& allowed);
/// A browser's question before a request, which it asks without the key.
bool is_preflight(const Request& request);
HttpResponse preflight_answer(const Request& request);

/// The state of one answer; everything happens on the connection's strand.
class Exchange final : public HttpExchange, public std::enable_shared_from_this<Exchange> {
 public:
  /// `headers` go with every answer.
  Exchange(Strand strand, Headers headers, bool keep_alive, bool chunked, bool head_only)
      : strand_(strand),
        wake_(strand),
        headers_(std::move(headers)),
        keep_alive_(keep_alive),
        chunked_(chunked),
        head_only_(head_only) {}

  void respond(HttpResponse response) override;
  void start_stream(std::string_view content_type) override;
  void write(std::string_view bytes) override;
  void end() override;
  void on_close(std::function<void()> callback) override;
  void post(std::function<void()> function) override;

  /// The client has left.
  void close();
  /// Waits until there is something to write, or the end.
  boost::asio::awaitable<void> ready();
  std::string take() { return std::exchange(out_, {}); }
  bool ended() const { return ended_ && out_.empty(); }
  bool closed() const { return closed_; }
  bool keep_alive() const { return keep_alive_; }
  void no_keep_alive() { keep_alive_ = false; }

 private:
  void add_head(HttpResponse& response, std::string_view length_header);

  Strand strand_;
  boost::asio::steady_timer wake_;
  const Headers headers_;
  std::string out_;
  std::function<void()> on_close_;
  bool keep_alive_, chunked_, head_only_;
  bool streaming_ = false, ended_ = false, closed_ = false;
};

}  // namespace lorry::serve

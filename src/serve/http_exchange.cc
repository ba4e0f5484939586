#include "serve/http_exchange.h"

#include <fmt/format.h>

#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/field.hpp>
#include <boost/beast/http/status.hpp>

#include "base/version.h"

namespace lorry::serve {

namespace asio = boost::asio;
namespace http = boost::beast::http;

std::string_view text_of(const Request& request, http::field field) {
  const auto value = request[field];
  return {value.data(), value.size()};
}

std::string response_head(const HttpResponse& response, bool keep_alive,
                          std::string_view length_header) {
  std::string out = fmt::format(
      "HTTP/1.1 {} {}\r\nServer: lorry/{}\r\nContent-Type: {}\r\n{}Connection: {}\r\n",
      response.status,
      std::string_view(http::obsolete_reason(http::int_to_status(response.status))), kVersion,
      response.content_type, length_header, keep_alive ? "keep-alive" : "close");
  for (const auto& [name, value] : response.headers) out += name + ": " + value + "\r\n";
  return out + "\r\n";
}

Headers cors_headers(const Request& request, const std::vector<std::string>& allowed) {
  const std::string_view origin = text_of(request, http::field::origin);
  if (origin.empty()) return {};
  for (const std::string& one : allowed) {
    if (one == "*") return {{"Access-Control-Allow-Origin", "*"}};
    if (one == origin) return {{"Access-Control-Allow-Origin", one}, {"Vary", "Origin"}};
  }
  return {};
}

bool is_preflight(const Request& request) {
  return request.method() == http::verb::options &&
         request.find(http::field::access_control_request_method) != request.end();
}

HttpResponse preflight_answer(const Request& request) {
  std::string_view headers = text_of(request, http::field::access_control_request_headers);
  if (headers.empty()) headers = "authorization, content-type";
  return {200,
          "text/plain",
          {},
          {{"Access-Control-Allow-Methods", "GET, POST, OPTIONS"},
           {"Access-Control-Allow-Headers", std::string(headers)},
           {"Access-Control-Max-Age", "86400"}}};
}

void Exchange::respond(HttpResponse response) {
  if (ended_ || streaming_) return;
  add_head(response, fmt::format("Content-Length: {}\r\n", response.body.size()));
  if (!head_only_) out_ += response.body;
  end();
}

void Exchange::start_stream(std::string_view content_type) {
  if (ended_ || streaming_) return;
  streaming_ = true;
  // HTTP/1.0 knows no chunks: the end of the connection is the end of the answer.
  if (!chunked_) keep_alive_ = false;
  HttpResponse response{200, std::string(content_type), {}, {{"Cache-Control", "no-cache"}}};
  add_head(response, chunked_ ? "Transfer-Encoding: chunked\r\n" : "");
  wake_.cancel();
}

void Exchange::write(std::string_view bytes) {
  if (ended_ || !streaming_ || bytes.empty()) return;
  if (chunked_) {
    out_ += fmt::format("{:x}\r\n", bytes.size());
    out_ += bytes;
    out_ += "\r\n";
  } else {
    out_ += bytes;
  }
  wake_.cancel();
}

void Exchange::end() {
  if (ended_) return;
  if (streaming_ && chunked_) out_ += "0\r\n\r\n";
  ended_ = true;
  on_close_ = nullptr;
  wake_.cancel();
}

void Exchange::on_close(std::function<void()> callback) {
  if (closed_) return callback();
  if (!ended_) on_close_ = std::move(callback);
}

void Exchange::post(std::function<void()> function) {
  asio::post(strand_, [self = shared_from_this(), function = std::move(function)] { function(); });
}

void Exchange::close() {
  if (closed_) return;
  closed_ = ended_ = true;
  keep_alive_ = false;
  out_.clear();
  if (auto callback = std::exchange(on_close_, nullptr)) callback();
  wake_.cancel();
}

asio::awaitable<void> Exchange::ready() {
  while (out_.empty() && !ended_) {
    wake_.expires_at(asio::steady_timer::time_point::max());
    boost::system::error_code ignored;
    co_await wake_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
}

void Exchange::add_head(HttpResponse& response, std::string_view length_header) {
  response.headers.insert(response.headers.end(), headers_.begin(), headers_.end());
  out_ += response_head(response, keep_alive_, length_header);
}

}  // namespace lorry::serve

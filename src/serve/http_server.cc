#include "serve/http_server.h"

#include <fmt/format.h>
#include <sys/socket.h>  // recv

#include <atomic>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <mutex>
#include <set>
#include <thread>

#include "base/log.h"
#include "serve/content_encoding.h"
#include "serve/http_exchange.h"
#include "serve/request_target.h"

namespace lorry::serve {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Task = asio::awaitable<void>;

struct Shared {
  HttpOptions options;
  HttpHandler handler;
  HttpErrorBody error_body;
  std::atomic<bool> stopping{false};
  std::atomic<int> active{0};  // requests being answered
};

/// How long a connection is kept for the client to read the last answer.
constexpr std::chrono::seconds kLinger{5}, kLingerForTurnedAway{1};

class Session final : public std::enable_shared_from_this<Session> {
 public:
  Session(tcp::socket socket, Strand strand, Shared& shared)
      : stream_(std::move(socket)), strand_(strand), shared_(shared) {}

  Task run() {
    auto self = shared_from_this();
    try {
      while (co_await serve_one()) {
      }
    } catch (const std::exception& e) {
      log::debug("connection ended: {}", e.what());
      if (exchange_) exchange_->close();
    }
    error_code ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
    stream_.close();
  }
  /// Instead of `run`: says that there are too many connections, and ends.
  Task turn_away() {
    auto self = shared_from_this();
    HttpResponse response{503, "application/json", {}, {{"Retry-After", "1"}}};
    response.body =
        shared_.error_body(503, fmt::format("this server has its {} connections; try again soon",
                                            shared_.options.max_connections));
    try {
      co_await send_last(std::move(response), kLingerForTurnedAway);
    } catch (const std::exception&) {  // gone already
    }
    stream_.close();
  }
  /// Idle: closes. Busy: lets the answer end, or not if `now`.
  void stop(bool now) {
    asio::post(strand_, [self = shared_from_this(), now] {
      if (self->exchange_ && !now) return self->exchange_->no_keep_alive();
      if (self->exchange_) self->exchange_->close();
      self->stream_.close();
    });
  }

 private:
  using Parser = http::request_parser<http::string_body>;

  /// One request and its answer; false if the connection is to end.
  asio::awaitable<bool> serve_one() {
    Parser parser;
    parser.header_limit(shared_.options.max_header_bytes);
    parser.body_limit(shared_.options.max_body_bytes);
    error_code ec;
    if (buffer_.size() == 0) {  // wait for a first byte: an idle connection is not a slow request
      stream_.expires_after(shared_.options.idle_timeout);
      const size_t n = co_await stream_.async_read_some(
          buffer_.prepare(16 << 10), asio::redirect_error(asio::use_awaitable, ec));
      if (ec) co_return false;
      buffer_.commit(n);
    }
    stream_.expires_after(shared_.options.read_timeout);
    co_await http::async_read_header(stream_, buffer_, parser,
                                     asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return co_await refuse(ec);
    if (beast::iequals(parser.get()[http::field::expect], "100-continue")) {
      if (parser.content_length().value_or(0) > shared_.options.max_body_bytes)
        co_return co_await refuse(http::error::body_limit);
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      co_await asio::async_write(stream_, asio::buffer(kContinue), asio::use_awaitable);
    }
    co_await http::async_read(stream_, buffer_, parser,
                              asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return co_await refuse(ec);
    co_return co_await answer(parser.release());
  }

  asio::awaitable<bool> answer(Request message) {
    const std::string_view target(message.target().data(), message.target().size());
    HttpRequest request{std::string(message.method_string()), percent_decode(path_of(target)),
                        std::string(message[http::field::authorization]),
                        std::move(message.body())};
    const bool keep_alive = message.keep_alive() && !shared_.stopping;
    exchange_ =
        std::make_shared<Exchange>(strand_, cors_headers(message, shared_.options.allowed_origins),
                                   keep_alive, message.version() >= 11, request.method == "HEAD");
    ++shared_.active;
    const std::shared_ptr<void> on_exit(nullptr, [this](void*) {
      if (exchange_) exchange_->close();
      exchange_.reset();
      --shared_.active;
    });
    watch(exchange_);
    try {
      if (is_preflight(message)) {
        exchange_->respond(preflight_answer(message));
      } else if (decode(message, request)) {
        shared_.handler(request, exchange_);
      }
    } catch (const std::exception& e) {
      log::error("{} {}: {}", request.method, request.path, e.what());
      exchange_->respond({500, "application/json", shared_.error_body(500, "internal error"), {}});
    }
    while (!exchange_->ended()) {
      stream_.expires_never();
      co_await exchange_->ready();
      const std::string bytes = exchange_->take();
      if (exchange_->closed()) break;
      stream_.expires_after(shared_.options.write_timeout);
      co_await asio::async_write(stream_, asio::buffer(bytes), asio::use_awaitable);
    }
    unwatch_.emit(asio::cancellation_type::terminal);
    co_return exchange_->keep_alive() && !exchange_->closed() && !shared_.stopping;
  }

  /// Undoes the Content-Encoding of the body. False, and answered, if that cannot be.
  bool decode(const Request& message, HttpRequest& request) {
    const std::string_view encoding = text_of(message, http::field::content_encoding);
    if (encoding.empty()) return true;
    auto body = decode_body(encoding, std::move(request.body), shared_.options.max_body_bytes);
    if (auto* text = std::get_if<std::string>(&body)) {
      request.body = std::move(*text);
      return true;
    }
    const auto& error = std::get<BodyError>(body);
    HttpResponse response{error.status, "application/json", {}, {}};
    response.body = shared_.error_body(error.status, error.message);
    if (error.status == 415) response.headers.emplace_back("Accept-Encoding", kContentCodings);
    exchange_->respond(std::move(response));
    return false;
  }

  /// Takes what the client sends before its answer is complete, a next request or a stray line end,
  /// so that the end of the connection, which comes after it, is seen. False if it has left.
  bool take_early_bytes() {
    while (buffer_.size() < shared_.options.max_header_bytes) {
      constexpr size_t kPiece = 4096;
      const auto n = ::recv(stream_.socket().native_handle(), buffer_.prepare(kPiece).data(),
                            kPiece, MSG_DONTWAIT);
      if (n == 0) return false;
      if (n < 0) return errno == EAGAIN || errno == EINTR;
      buffer_.commit(static_cast<size_t>(n));
    }
    return true;
  }

  /// Tells the exchange when the client hangs up before the answer is complete.
  void watch(const std::shared_ptr<Exchange>& exchange) {
    auto check = [self = shared_from_this(), exchange](error_code ec) {
      if (ec || exchange->ended()) return;
      if (!self->take_early_bytes()) return exchange->close();
      // A client that sends more than that reads its answers.
      if (self->buffer_.size() < self->shared_.options.max_header_bytes) self->watch(exchange);
    };
    stream_.socket().async_wait(
        tcp::socket::wait_read,
        asio::bind_cancellation_slot(unwatch_.slot(),
                                     asio::bind_executor(strand_, std::move(check))));
  }

  /// Answers what is not a request that can be handled, then ends the connection.
  asio::awaitable<bool> refuse(error_code ec) {
    if (ec == http::error::end_of_stream || ec == asio::error::connection_reset) co_return false;
    HttpResponse response;
    std::string message;
    if (ec == http::error::body_limit) {
      response.status = 413;
      message = fmt::format("the request's body is larger than the limit of {} bytes",
                            shared_.options.max_body_bytes);
    } else if (ec == http::error::header_limit || ec == http::error::buffer_overflow) {
      response.status = 431;
      message = fmt::format("the request's headers are larger than the limit of {} bytes",
                            shared_.options.max_header_bytes);
    } else if (ec == beast::error::timeout) {
      co_return false;  // the stream is closed by now
    } else if (ec.category() == http::make_error_code(http::error::bad_method).category()) {
      response.status = 400;
      message = "this is not an HTTP/1.1 request: " + ec.message();
    } else {
      co_return false;
    }
    response.body = shared_.error_body(response.status, message);
    co_await send_last(std::move(response), kLinger);
    co_return false;
  }

  Task send_last(HttpResponse response, std::chrono::seconds linger_for) {
    std::string bytes = response_head(response, false,
                                      fmt::format("Content-Length: {}\r\n", response.body.size())) +
                        response.body;
    stream_.expires_after(std::min(shared_.options.write_timeout, linger_for));
    error_code ignored;
    co_await asio::async_write(stream_, asio::buffer(bytes),
                               asio::redirect_error(asio::use_awaitable, ignored));
    co_await linger(linger_for);
  }

  /// Reads on for a moment, so that closing does not reset the connection under the answer.
  Task linger(std::chrono::seconds limit) {
    error_code ec;
    stream_.socket().shutdown(tcp::socket::shutdown_send, ec);
    stream_.expires_after(limit);
    std::vector<char> sink(64 << 10);
    uint64_t total = 0;
    while (!ec && total < 4 * shared_.options.max_body_bytes) {
      total += co_await stream_.async_read_some(asio::buffer(sink),
                                                asio::redirect_error(asio::use_awaitable, ec));
    }
  }

  beast::tcp_stream stream_;
  Strand strand_;
  Shared& shared_;
  beast::flat_buffer buffer_;
  asio::cancellation_signal unwatch_;
  std::shared_ptr<Exchange> exchange_;  // while a request is being answered
};

Error bind_error(const HttpOptions& options, const error_code& ec) {
  const std::string address = fmt::format("{}:{}", options.host, options.port);
  if (ec == asio::error::address_in_use)
    return unavailable(fmt::format(
        "{} is already in use; stop the program that listens there or choose another --port",
        address));
  if (ec == asio::error::access_denied)
    return unavailable(fmt::format("{}: permission denied; choose a --port above 1023", address));
  return invalid_input(
      fmt::format("cannot listen on {}: {}; check --host and --port", address, ec.message()));
}

}  // namespace

struct HttpServer::Impl {
  Shared shared;
  asio::io_context context;
  tcp::acceptor acceptor{context};
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::set<std::shared_ptr<Session>> sessions;  // guarded by mutex, as is the next
  size_t turned_away = 0;                       // of the sessions
  bool stopped = false;

  Result<> bind() {
    const HttpOptions& options = shared.options;
    if (options.port < 0 || options.port > 65535)
      return usage_error(fmt::format("--port {}: must be from 0 to 65535", options.port));
    error_code ec;
    tcp::resolver resolver(context);
    const auto found =
        resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, ec);
    if (ec || found.empty()) return bind_error(options, ec);
    const tcp::endpoint endpoint = *found.begin();
    acceptor.open(endpoint.protocol(), ec);
    if (!ec) acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
    if (!ec) acceptor.bind(endpoint, ec);
    if (!ec) acceptor.listen(asio::socket_base::max_listen_connections, ec);
    if (ec) return bind_error(options, ec);
    return {};
  }

  Task accept() {
    while (!shared.stopping) {
      error_code ec;
      Strand strand = asio::make_strand(context.get_executor());
      tcp::socket socket(strand);
      co_await acceptor.async_accept(socket, asio::redirect_error(asio::use_awaitable, ec));
      if (shared.stopping) co_return;
      if (ec) {  // out of file descriptors, most likely: wait for some to be closed
        asio::steady_timer pause(context, std::chrono::milliseconds(50));
        co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, ec));
        continue;
      }
      socket.set_option(tcp::no_delay(true), ec);
      begin(std::make_shared<Session>(std::move(socket), strand, shared), strand);
    }
  }

  void begin(const std::shared_ptr<Session>& session, const Strand& strand) {
    const auto most = static_cast<size_t>(shared.options.max_connections);
    bool crowded = false;
    {
      std::lock_guard lock(mutex);
      crowded = sessions.size() - turned_away >= most;
      // Who comes in even greater numbers is not answered at all.
      if (crowded && turned_away >= std::max<size_t>(most, 64)) return;
      sessions.insert(session);
      turned_away += crowded;
    }
    asio::co_spawn(strand, crowded ? session->turn_away() : session->run(),
                   [this, session, crowded](std::exception_ptr) {
                     std::lock_guard lock(mutex);
                     sessions.erase(session);
                     turned_away -= crowded;
                   });
  }

  void stop_sessions(bool now) {
    std::lock_guard lock(mutex);
    for (const auto& session : sessions) session->stop(now);
  }
  bool has_sessions() {
    std::lock_guard lock(mutex);
    return !sessions.empty();
  }
  void wait_for_sessions(std::chrono::milliseconds limit) {
    const auto deadline = std::chrono::steady_clock::now() + limit;
    while (has_sessions() && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }

  void stop(std::chrono::milliseconds grace) {
    if (std::exchange(stopped, true)) return;
    shared.stopping = true;
    asio::post(acceptor.get_executor(), [this] {
      error_code ignored;
      acceptor.close(ignored);
    });
    stop_sessions(false);
    wait_for_sessions(grace);
    stop_sessions(true);
    wait_for_sessions(std::chrono::seconds(1));
    context.stop();
    for (std::thread& thread : threads) thread.join();
  }
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() { impl_->stop(std::chrono::milliseconds(0)); }

Result<std::unique_ptr<HttpServer>> HttpServer::start(HttpOptions options, HttpHandler handler,
                                                      HttpErrorBody error_body) {
  auto impl = std::make_unique<Impl>();
  impl->shared.options = std::move(options);
  impl->shared.handler = std::move(handler);
  impl->shared.error_body = std::move(error_body);
  LORRY_TRY(impl->bind());
  asio::co_spawn(impl->context, impl->accept(), asio::detached);
  for (int i = 0; i < std::max(1, impl->shared.options.threads); ++i)
    impl->threads.emplace_back([context = &impl->context] { context->run(); });
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

std::string HttpServer::address() const {
  const std::string& host = impl_->shared.options.host;
  const bool v6 = host.find(':') != std::string::npos;
  return fmt::format("{}{}{}:{}", v6 ? "[" : "", host, v6 ? "]" : "", port());
}
int HttpServer::port() const {
  error_code ec;
  return impl_->acceptor.local_endpoint(ec).port();
}
void HttpServer::stop(std::chrono::milliseconds grace) { impl_->stop(grace); }

}  // namespace lorry::serve

#include "serve/http_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "serve/request_target.h"

namespace lorry::serve {
namespace {

/// A plain socket: sends bytes, reads until the other end closes or `until` has come.
class Client {
 public:
  explicit Client(int port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    ::inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  ~Client() { ::close(fd_); }
  void send(const std::string& bytes) {
    EXPECT_EQ(::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  std::string read(const std::string& until = {}) {
    std::string out;
    char buffer[4096];
    while (until.empty() || out.find(until) == std::string::npos) {
      const ssize_t n = ::recv(fd_, buffer, sizeof(buffer), 0);
      if (n <= 0) break;
      out.append(buffer, static_cast<size_t>(n));
    }
    return out;
  }

 private:
  int fd_;
};

std::unique_ptr<HttpServer> serve(HttpHandler handler, HttpOptions options = {}) {
  options.port = 0;
  auto server = HttpServer::start(options, std::move(handler), [](int, std::string_view message) {
    return std::string(message);
  });
  EXPECT_TRUE(server.ok());
  return std::move(server).value();
}

void echo(const HttpRequest& request, const std::shared_ptr<HttpExchange>& exchange) {
  exchange->respond(
      {200, "text/plain", request.method + " " + request.path + " " + request.body, {}});
}

TEST(HttpServer, FindsThePathHoweverClientsWriteIt) {
  for (const char* target : {"/v1/models", "/v1/models/", "//v1/models", "/v1//models?a=b",
                             "http://host:80/v1/models", "/v1/models//"}) {
    EXPECT_EQ(path_of(target), "/v1/models") << target;
  }
  EXPECT_EQ(path_of("/"), "/");
  EXPECT_EQ(path_of("http://host"), "/");
  EXPECT_EQ(path_of("/v1/models/a%2Fb"), "/v1/models/a%2Fb");
}

TEST(HttpServer, LetsPagesOfAllowedOriginsReadTheAnswers) {
  const std::string preflight =
      "OPTIONS /x HTTP/1.1\r\nHost: h\r\nOrigin: https://a.example\r\n"
      "Access-Control-Request-Method: POST\r\n"
      "Access-Control-Request-Headers: content-type, x-stainless-os\r\nConnection: close\r\n\r\n";
  const std::string get =
      "GET /x HTTP/1.1\r\nHost: h\r\nOrigin: https://a.example\r\nConnection: close\r\n\r\n";
  const auto asked = [](const HttpServer& server, const std::string& request) {
    Client client(server.port());
    client.send(request);
    return client.read();
  };
  const auto open = serve(echo);
  const std::string answer = asked(*open, preflight);
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200")) << answer;
  EXPECT_NE(answer.find("Access-Control-Allow-Origin: *"), std::string::npos);
  EXPECT_NE(answer.find("Access-Control-Allow-Headers: content-type, x-stainless-os"),
            std::string::npos);
  EXPECT_NE(asked(*open, get).find("Access-Control-Allow-Origin: *"), std::string::npos);

  const auto some = serve(echo, {.allowed_origins = {"https://a.example"}});
  EXPECT_NE(asked(*some, get).find("Access-Control-Allow-Origin: https://a.example"),
            std::string::npos);
  const auto others = serve(echo, {.allowed_origins = {"https://b.example"}});
  EXPECT_EQ(asked(*others, get).find("Access-Control"), std::string::npos);
}

TEST(HttpServer, NoticesAClientThatLeavesAfterAByteTooMany) {
  std::promise<void> closed;
  const auto server = serve([&](const HttpRequest&, const std::shared_ptr<HttpExchange>& exchange) {
    exchange->start_stream("text/plain");
    exchange->on_close([&] { closed.set_value(); });
  });
  {
    Client client(server->port());
    client.send("GET /x HTTP/1.1\r\nHost: h\r\n\r\n\r\n");
    client.read("\r\n\r\n");
    client.send("\r\n");
  }
  EXPECT_EQ(closed.get_future().wait_for(std::chrono::seconds(5)), std::future_status::ready);
}

TEST(HttpServer, KeepsTheConnectionForSeveralRequests) {
  const auto server = serve(echo);
  Client client(server->port());
  client.send("POST /a%20b?x=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
  EXPECT_NE(client.read("POST /a b hi").find("HTTP/1.1 200 OK\r\n"), std::string::npos);
  client.send("GET /second HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string last = client.read();
  EXPECT_NE(last.find("GET /second "), std::string::npos);
  EXPECT_NE(last.find("Connection: close"), std::string::npos);
}

TEST(HttpServer, AnswersPipelinedRequestsInOrder) {
  const auto server = serve(echo);
  Client client(server->port());
  client.send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string both = client.read("GET /2");
  EXPECT_LT(both.find("GET /1"), both.find("GET /2"));
}

TEST(HttpServer, StreamsInChunks) {
  const auto server = serve([](const HttpRequest&, const std::shared_ptr<HttpExchange>& exchange) {
    std::thread([exchange] {
      exchange->post([exchange] { exchange->start_stream("text/event-stream"); });
      exchange->post([exchange] { exchange->write("data: one\n\n"); });
      exchange->post([exchange] {
        exchange->write("data: two\n\n");
        exchange->end();
      });
    }).detach();
  });
  Client client(server->port());
  client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string all = client.read("0\r\n\r\n");
  EXPECT_NE(all.find("Transfer-Encoding: chunked"), std::string::npos);
  EXPECT_NE(all.find("b\r\ndata: one\n\n\r\n"), std::string::npos);
  EXPECT_NE(all.find("b\r\ndata: two\n\n\r\n"), std::string::npos);
}

TEST(HttpServer, RefusesABodyThatIsTooLarge) {
  HttpOptions options;
  options.max_body_bytes = 10;
  const auto server = serve(echo, options);
  Client client(server->port());
  client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello world");
  EXPECT_EQ(client.read("limit of 10 bytes").substr(9, 3), "413");
}

TEST(HttpServer, RefusesWhatIsNotHttp) {
  const auto server = serve(echo);
  Client client(server->port());
  client.send("this is not http\r\n\r\n");
  EXPECT_EQ(client.read("\r\n\r\n").substr(9, 3), "400");
}

TEST(HttpServer, AHandlerThatThrowsGivesAnError) {
  const auto server = serve(
      [](const HttpRequest&, const std::shared_ptr<HttpExchange>&) { throw std::bad_alloc(); });
  Client client(server->port());
  client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.read("internal error").substr(9, 3), "500");
}

TEST(HttpServer, TellsTheHandlerThatTheClientLeft) {
  std::atomic<bool> closed{false};
  const auto server = serve([&](const HttpRequest&, const std::shared_ptr<HttpExchange>& exchange) {
    exchange->on_close([&closed] {
      closed = true;
      closed.notify_all();
    });
    exchange->start_stream("text/plain");
    exchange->write("first");
  });
  {
    Client client(server->port());
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client.read("first");
  }
  closed.wait(false);
  EXPECT_TRUE(closed);
}

TEST(HttpServer, AnOldClientGetsTheStreamWithoutChunks) {
  const auto server = serve([](const HttpRequest&, const std::shared_ptr<HttpExchange>& exchange) {
    exchange->start_stream("text/plain");
    exchange->write("plain");
    exchange->end();
  });
  Client client(server->port());
  client.send("GET / HTTP/1.0\r\n\r\n");
  const std::string all = client.read();
  EXPECT_TRUE(all.ends_with("\r\n\r\nplain"));
}

TEST(HttpServer, APortInUseIsNamed) {
  const auto server = serve(echo);
  HttpOptions options;
  options.port = server->port();
  const auto second = HttpServer::start(options, echo, nullptr);
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.error().message.find(server->address() + " is already in use"),
            std::string::npos);
}

TEST(HttpServer, OneConnectionTooManyIsTurnedAwayUntilAnotherLeaves) {
  HttpOptions options;
  options.max_connections = 2;
  const auto server = serve(echo, options);
  const std::string request = "GET /x HTTP/1.1\r\nHost: x\r\n\r\n";
  auto first = std::make_unique<Client>(server->port());
  Client second(server->port());
  first->send(request);
  second.send(request);
  EXPECT_EQ(first->read("GET /x").substr(9, 3), "200");
  EXPECT_EQ(second.read("GET /x").substr(9, 3), "200");
  {
    Client third(server->port());
    third.send(request);
    const std::string refusal = third.read();
    EXPECT_EQ(refusal.substr(9, 3), "503");
    EXPECT_NE(refusal.find("Retry-After: 1\r\n"), std::string::npos);
    EXPECT_NE(refusal.find("its 2 connections"), std::string::npos);
  }
  second.send(request);
  EXPECT_EQ(second.read("GET /x").substr(9, 3), "200") << "those that are in stay in";
  first.reset();
  std::string answer;
  while (!answer.starts_with("HTTP/1.1 200")) {  // the server hears of the end in its own time
    Client next(server->port());
    next.send("GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    answer = next.read();
  }
}

TEST(PercentDecode, LeavesBrokenEscapesAlone) {
  EXPECT_EQ(percent_decode("a%2Fb%zz%4"), "a/b%zz%4");
}

}  // namespace
}  // namespace lorry::serve

// An HTTP server inside a test, which answers as the test wants: rightly, wrongly, or not at all.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace lorry::net {

struct TestRequest {
  std::string method, target;  ///< target with its query
  std::string head;            ///< request line and header lines
  std::string body;
  int number = 0;  ///< counted from 1

  /// Value of a header, named in lower case; empty if it is not there.
  std::string header(const std::string& name) const {
    for (size_t at = head.find("\r\n"); at != std::string::npos && at + 2 < head.size();
         at = head.find("\r\n", at + 2)) {
      const size_t end = head.find("\r\n", at + 2);
      std::string line = head.substr(at + 2, end - at - 2);
      const size_t colon = line.find(':');
      if (colon == std::string::npos) continue;
      std::string key = line.substr(0, colon);
      for (char& c : key) c = char(std::tolower(c));
      if (key == name) return line.substr(line.find_first_not_of(' ', colon + 1));
    }
    return {};
  }
};

struct TestReply {
  std::string bytes;  ///< the whole answer, head included
  /// What follows the bytes: a close, a reset, or silence until the client goes.
  enum class End { kClose, kReset, kStall } end = End::kClose;
};

/// "HTTP/1.1 200 X" with headers ("Name: value\r\n"...) and a body with its length.
inline TestReply reply(int status, const std::string& body, const std::string& headers = "") {
  return {"HTTP/1.1 " + std::to_string(status) + " X\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\nConnection: close\r\n" + headers + "\r\n" + body,
          TestReply::End::kClose};
}

/// A reply whose last `missing` bytes never come.
inline TestReply cut(TestReply whole, size_t missing, TestReply::End end) {
  whole.bytes.resize(whole.bytes.size() - missing);
  whole.end = end;
  return whole;
}

class TestServer {
 public:
  using Handler = std::function<TestReply(const TestRequest&)>;

  explicit TestServer(Handler handler) : handler_(std::move(handler)) {
    ::setenv("no_proxy", "127.0.0.1,localhost", 1);
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(at);
    (void)::bind(listener_, reinterpret_cast<sockaddr*>(&at), size);
    (void)::listen(listener_, 64);
    (void)::getsockname(listener_, reinterpret_cast<sockaddr*>(&at), &size);
    port_ = ntohs(at.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~TestServer() {
    ending_ = true;
    acceptor_.join();
    ::close(listener_);
    for (auto& thread : threads_) thread.join();
  }

  std::string url(const std::string& path = "") const {
    return "http://127.0.0.1:" + std::to_string(port_) + path;
  }
  int requests() const { return count_; }

 private:
  bool readable(int fd) const {
    pollfd waiting{fd, POLLIN, 0};
    while (!ending_) {
      if (::poll(&waiting, 1, 10) > 0) return true;
    }
    return false;
  }

  void accept_all() {
    while (readable(listener_)) {
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd >= 0) threads_.emplace_back([this, fd] { serve(fd); });
    }
  }

  void serve(int fd) {
    TestRequest request;
    if (receive(fd, request)) {
      TestReply answer;
      {
        std::lock_guard lock(mutex_);
        request.number = ++count_;
        answer = handler_(request);
      }
      send_all(fd, answer.bytes);
      if (answer.end == TestReply::End::kStall) {
        char byte;
        if (readable(fd)) (void)!::read(fd, &byte, 1);
      } else if (answer.end == TestReply::End::kReset) {
        const linger now{1, 0};
        (void)::setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
      }
    }
    ::close(fd);
  }

  bool receive(int fd, TestRequest& request) {
    std::string bytes;
    size_t head_end = std::string::npos, body = 0;
    while (head_end == std::string::npos || bytes.size() < head_end + 4 + body) {
      char block[65536];
      if (!readable(fd)) return false;
      const ssize_t n = ::read(fd, block, sizeof(block));
      if (n <= 0) return false;
      bytes.append(block, size_t(n));
      if (head_end != std::string::npos) continue;
      head_end = bytes.find("\r\n\r\n");
      if (head_end == std::string::npos) continue;
      request.head = bytes.substr(0, head_end + 2);
      body = size_t(std::atoll(request.header("content-length").c_str()));
    }
    request.body = bytes.substr(head_end + 4);
    request.method = request.head.substr(0, request.head.find(' '));
    const size_t target = request.method.size() + 1;
    request.target = request.head.substr(target, request.head.find(' ', target) - target);
    return true;
  }

  static void send_all(int fd, const std::string& bytes) {
    for (size_t at = 0; at < bytes.size();) {
      const ssize_t n = ::send(fd, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
      if (n <= 0) return;
      at += size_t(n);
    }
  }

  Handler handler_;
  int listener_ = -1, port_ = 0;
  std::atomic<bool> ending_{false};
  std::atomic<int> count_{0};
  std::mutex mutex_;  ///< one answer at a time
  std::thread acceptor_;
  std::vector<std::thread> threads_;  ///< touched by acceptor_, then by the destructor
};

}  // namespace lorry::net

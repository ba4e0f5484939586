// A real S3 server for tests, started with the first use and ended with the process.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>  // the server ends when the test dies
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include "store/s3_client.h"

namespace lorry::store {

/// versitygw from $LORRY_VERSITYGW, ~/.cache/lorry/bin or PATH (./dev puts it there); or the server
/// at $LORRY_TEST_S3_ENDPOINT, with the credentials of the environment.
class S3Server {
 public:
  static S3Server& shared() {
    static S3Server server;
    return server;
  }
  ~S3Server() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    std::error_code ignored;
    if (!dir_.empty()) std::filesystem::remove_all(dir_, ignored);
  }

  /// Empty: the server runs. Else why tests against it are skipped.
  const std::string& missing() const { return missing_; }

  /// "s3://..." of a bucket that is there and empty.
  std::string new_bucket() {
    static int serial = 0;
    const std::string name = "t" + std::to_string(::getpid()) + "-" + std::to_string(serial++);
    auto place = find_s3_place(name);
    S3Client client(*place, standard_credentials());
    S3Request make;
    make.method = "PUT";
    (void)client.send(make);
    return "s3://" + name;
  }

 private:
  S3Server() {
    ::setenv("no_proxy", "127.0.0.1,localhost", 1);
    ::setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    if (const char* endpoint = std::getenv("LORRY_TEST_S3_ENDPOINT"); endpoint && *endpoint) {
      ::setenv("AWS_ENDPOINT_URL_S3", endpoint, 1);
      return;
    }
    const std::string program = find_program();
    if (program.empty()) {
      missing_ = "no versitygw here (./dev test gets it): S3 is not tested";
      return;
    }
    start(program);
  }

  static std::string find_program() {
    namespace fs = std::filesystem;
    if (const char* named = std::getenv("LORRY_VERSITYGW"); named && *named) return named;
    const char* home = std::getenv("HOME");
    const std::string cached = std::string(home ? home : "") + "/.cache/lorry/bin/versitygw";
    if (fs::exists(cached)) return cached;
    std::string path = std::getenv("PATH") ? std::getenv("PATH") : "";
    for (size_t begin = 0; begin < path.size();) {
      const size_t end = std::min(path.find(':', begin), path.size());
      const std::string candidate = path.substr(begin, end - begin) + "/versitygw";
      if (fs::exists(candidate)) return candidate;
      begin = end + 1;
    }
    return {};
  }

  static int free_port() {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(at);
    (void)::bind(fd, reinterpret_cast<sockaddr*>(&at), size);
    (void)::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size);
    ::close(fd);
    return ntohs(at.sin_port);
  }

  void start(const std::string& program) {
    dir_ = (std::filesystem::temp_directory_path() / ("lorry-s3-" + std::to_string(::getpid())))
               .string();
    std::filesystem::create_directories(dir_);
    const int port = free_port();
    const std::string address = "127.0.0.1:" + std::to_string(port);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::execl(program.c_str(), "versitygw", "--port", address.c_str(), "--access", "test",
              "--secret", "testtest", "-q", "posix", dir_.c_str(), nullptr);
      ::_exit(127);
    }
    ::setenv("AWS_ENDPOINT_URL_S3", ("http://" + address).c_str(), 1);
    ::setenv("AWS_ACCESS_KEY_ID", "test", 1);
    ::setenv("AWS_SECRET_ACCESS_KEY", "testtest", 1);
    ::setenv("AWS_REGION", "us-east-1", 1);
    if (!answers(port)) missing_ = program + " does not start: S3 is not tested";
  }

  static bool answers(int port) {
    for (int attempt = 0; attempt < 200; ++attempt) {
      const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
      sockaddr_in at{};
      at.sin_family = AF_INET;
      at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      at.sin_port = htons(uint16_t(port));
      const bool there = ::connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof(at)) == 0;
      ::close(fd);
      if (there) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return false;
  }

  pid_t pid_ = -1;
  std::string dir_, missing_;
};

}  // namespace lorry::store

#include "net/http.h"

#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>
#include <gtest/gtest.h>

#include "net/arrow_status.h"
#include "net/content_range.h"
#include "net/http_file.h"
#include "net/test_server.h"

namespace lorry::net {
namespace {

using End = TestReply::End;

RetryPolicy quick_policy() {
  RetryPolicy policy;
  policy.attempts = 4;
  policy.first_delay = 0.001;
  policy.max_delay = 0.01;
  policy.stall_seconds = 0.3;
  return policy;
}

const Client& quick() {
  static Client client(quick_policy());
  return client;
}

Request get(const std::string& url) {
  Request request;
  request.url = url;
  request.what = "s3://b/x";
  return request;
}

TEST(Http, BringsBodyAndHeaders) {
  TestServer server(
      [](const auto& request) { return reply(200, "hello " + request.target, "X-One: 1\r\n"); });
  auto response = quick().send(get(server.url("/a?b=c")));
  ASSERT_TRUE(response.ok()) << response.error().message;
  EXPECT_EQ(response->body, "hello /a?b=c");
  EXPECT_EQ(response->header("x-ONE"), "1");
  EXPECT_FALSE(response->header("x-two"));
  EXPECT_EQ(response->attempts, 1);
}

TEST(Http, TakesAMissingResourceAsAnAnswer) {
  TestServer server([](const auto&) { return reply(404, "no such thing"); });
  auto response = quick().send(get(server.url("/a")));
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->status, 404);
  EXPECT_EQ(response->body, "no such thing");
  EXPECT_EQ(server.requests(), 1);
}

TEST(Http, SendsABodyFromSeveralPieces) {
  TestServer server([](const auto& request) {
    return reply(200, request.method + " " + request.header("content-length") + " " + request.body);
  });
  for (const char* method : {"PUT", "POST"}) {
    Request request = get(server.url("/a"));
    request.method = method;
    request.body = {"one ", "", "two"};
    auto response = quick().send(request);
    ASSERT_TRUE(response.ok()) << response.error().message;
    EXPECT_EQ(response->body, std::string(method) + " 7 one two");
  }
}

TEST(Http, SendsNoBodyWhereThereIsNone) {
  TestServer server([](const auto& request) {
    return request.method == "HEAD" ? TestReply{"HTTP/1.1 200 X\r\nContent-Length: 12\r\n\r\n"}
                                    : reply(200, request.method + request.header("content-length"));
  });
  const std::pair<const char*, const char*> cases[] = {
      {"PUT", "PUT0"}, {"POST", "POST0"}, {"DELETE", "DELETE"}, {"HEAD", ""}};
  for (const auto& [method, body] : cases) {
    Request request = get(server.url("/a"));
    request.method = method;
    auto response = quick().send(request);
    ASSERT_TRUE(response.ok()) << method << response.error().message;
    EXPECT_EQ(response->body, body) << method;
  }
}

/// A fault that is gone on the third try.
struct Fault {
  const char* name;
  TestReply reply;
};

class PassingFault : public ::testing::TestWithParam<Fault> {};

TEST_P(PassingFault, IsTriedAgain) {
  TestServer server([](const auto& request) {
    return request.number < 3 ? GetParam().reply : reply(200, "the whole body");
  });
  auto response = quick().send(get(server.url("/x")));
  ASSERT_TRUE(response.ok()) << response.error().message;
  EXPECT_EQ(response->body, "the whole body");
  EXPECT_EQ(response->attempts, 3);
}

TEST_P(PassingFault, IsTriedAgainIntoTheCallersMemory) {
  TestServer server([](const auto& request) {
    return request.number < 3 ? GetParam().reply : reply(200, "the whole body");
  });
  std::string memory(14, '\0');
  Request request = get(server.url("/x"));
  request.into = memory;
  request.exact = true;
  auto response = quick().send(request);
  ASSERT_TRUE(response.ok()) << response.error().message;
  EXPECT_EQ(memory, "the whole body");
}

TEST_P(PassingFault, EndsInOneErrorWhenItStays) {
  TestServer server([](const auto&) { return GetParam().reply; });
  auto response = quick().send(get(server.url("/x")));
  ASSERT_FALSE(response.ok());
  EXPECT_EQ(response.error().kind, ErrorKind::kUnavailable);
  EXPECT_NE(response.error().message.find("s3://b/x"), std::string::npos);
  EXPECT_NE(response.error().message.find("4 tries"), std::string::npos)
      << response.error().message;
  EXPECT_EQ(server.requests(), 4);
}

TEST_P(PassingFault, DoesNotHurtABodyThatIsSent) {
  TestServer server([](const auto& request) {
    return request.number < 3 ? GetParam().reply : reply(200, request.body);
  });
  Request request = get(server.url("/x"));
  request.method = "PUT";
  const std::string sent(300'000, 'x');
  request.body = {sent, "end"};
  auto response = quick().send(request);
  ASSERT_TRUE(response.ok()) << response.error().message;
  EXPECT_EQ(response->body, sent + "end");
}

const TestReply kWhole = reply(200, "the whole body");
INSTANTIATE_TEST_SUITE_P(Faults, PassingFault,
                         ::testing::Values(Fault{"internal_error", reply(500, "oops")},
                                           Fault{"slow_down", reply(503, "<Code>SlowDown</Code>")},
                                           Fault{"too_many_requests",
                                                 reply(429, "", "Retry-After: 0\r\n")},
                                           Fault{"reset_before_the_head", {"", End::kReset}},
                                           Fault{"closed_before_the_head", {"", End::kClose}},
                                           Fault{"reset_in_the_body", cut(kWhole, 5, End::kReset)},
                                           Fault{"short_body", cut(kWhole, 5, End::kClose)},
                                           Fault{"stall_in_the_body", cut(kWhole, 5, End::kStall)}),
                         [](const auto& info) { return info.param.name; });

TEST(Http, TriesAgainWhenNoAnswerComes) {
  TestServer server([](const auto& request) {
    return request.number == 1 ? TestReply{"", End::kStall} : reply(200, "there");
  });
  auto response = quick().send(get(server.url("/x")));
  ASSERT_TRUE(response.ok()) << response.error().message;
  EXPECT_EQ(response->body, "there");
}

TEST(Http, TriesAgainWhenLessThanAskedForComes) {
  TestServer server(
      [](const auto& request) { return reply(200, request.number == 1 ? "short" : "as long"); });
  std::string memory(7, '\0');
  Request request = get(server.url("/x"));
  request.into = memory;
  request.exact = true;
  ASSERT_TRUE(quick().send(request).ok());
  EXPECT_EQ(memory, "as long");
}

TEST(Http, RefusesMoreThanFits) {
  TestServer server([](const auto&) { return reply(200, "far too long"); });
  std::string memory(4, '\0');
  Request request = get(server.url("/x"));
  request.into = memory;
  auto response = quick().send(request);
  ASSERT_FALSE(response.ok());
  EXPECT_EQ(response.error().kind, ErrorKind::kCorruptData);
  EXPECT_EQ(server.requests(), 1);
}

TEST(Http, EndsWithTheErrorOfACallback) {
  TestServer server([](const auto&) { return reply(200, "body"); });
  Request request = get(server.url("/x"));
  request.on_data = [](std::string_view) { return Result<>(invalid_input("not this")); };
  auto response = quick().send(request);
  ASSERT_FALSE(response.ok());
  EXPECT_EQ(response.error().message, "not this");
  EXPECT_EQ(server.requests(), 1);
}

TEST(Http, AsksBeforeEachTryAndMayGoOn) {
  TestServer server([](const auto& request) {
    if (request.number == 1) return cut(reply(206, "0123456789"), 4, End::kReset);
    return reply(206, std::string("0123456789").substr(6));
  });
  std::string got;
  std::vector<int> attempts;
  Request request = get(server.url("/x"));
  request.on_data = [&](std::string_view piece) {
    got.append(piece);
    return Result<>();
  };
  request.before_try = [&](Request& next, int attempt) {
    attempts.push_back(attempt);
    next.headers = {{"Range", "bytes=" + std::to_string(got.size()) + "-"}};
    return Result<>();
  };
  ASSERT_TRUE(quick().send(request).ok());
  EXPECT_EQ(got.substr(got.size() - 4), "6789");
  EXPECT_EQ(attempts, (std::vector<int>{1, 2}));
}

TEST(Http, TriesAgainWhatTheCallerSaysIsPassing) {
  TestServer server([](const auto& request) {
    return request.number == 1 ? reply(400, "later please") : reply(200, "now");
  });
  Request request = get(server.url("/x"));
  request.retry_because = [](const Response& response) -> std::optional<std::string> {
    if (response.status == 400) return "not yet";
    return std::nullopt;
  };
  EXPECT_EQ(quick().send(request)->body, "now");
}

TEST(Http, GivesUpOnAServerThatAsksForHours) {
  TestServer server([](const auto&) { return reply(429, "", "Retry-After: 7200\r\n"); });
  auto response = quick().send(get(server.url("/x")));
  ASSERT_FALSE(response.ok());
  EXPECT_NE(response.error().message.find("7200 s"), std::string::npos);
  EXPECT_EQ(server.requests(), 1);
}

TEST(Http, SaysThatNobodyAnswers) {
  std::string url;
  {
    url = TestServer([](const auto&) { return reply(200, ""); }).url("/x");
  }
  auto response = quick().send(get(url));
  ASSERT_FALSE(response.ok());
  EXPECT_EQ(response.error().kind, ErrorKind::kUnavailable);
  EXPECT_NE(response.error().message.find("cannot reach http://127.0.0.1"), std::string::npos)
      << response.error().message;
}

TEST(Http, KeepsAuthorizationFromOtherHosts) {
  TestServer other(
      [](const auto& request) { return reply(200, "auth=" + request.header("authorization")); });
  TestServer first([&](const auto& request) {
    EXPECT_EQ(request.header("authorization"), "Bearer secret");
    return reply(302, "", "Location: " + other.url("/y") + "\r\n");
  });
  Request request = get(first.url("/x"));
  request.headers = {{"Authorization", "Bearer secret"}};
  auto response = quick().send(request);
  ASSERT_TRUE(response.ok()) << response.error().message;
  EXPECT_EQ(response->body, "auth=");
  EXPECT_EQ(response->url, other.url("/y"));
}

TEST(Http, FollowsNoRedirectUnlessTold) {
  TestServer server([](const auto&) { return reply(307, "", "Location: http://nowhere/\r\n"); });
  Request request = get(server.url("/x"));
  request.follow_redirects = false;
  EXPECT_EQ(quick().send(request)->status, 307);
}

TEST(Http, EndsARequestWhoseReaderHasGone) {
  TestServer server([](const auto&) { return TestReply{"", End::kStall}; });
  std::atomic<bool> stop = true;
  Request request = get(server.url("/x"));
  request.stop = &stop;
  auto response = quick().send(request);
  ASSERT_FALSE(response.ok());
  EXPECT_EQ(response.error().kind, ErrorKind::kCancelled);
}

TEST(Http, RefusesOtherSchemes) { EXPECT_FALSE(quick().send(get("file:///etc/passwd")).ok()); }

TEST(Url, IsEncodedAndDecoded) {
  EXPECT_EQ(url_encode("a b/ü~"), "a%20b%2F%C3%BC~");
  EXPECT_EQ(url_encode("a/b", "/"), "a/b");
  EXPECT_EQ(url_decode("a%20b%2f%zz%"), "a b/%zz%");
  EXPECT_EQ(url_origin("HTTPS://me:pw@Host:8/x?y"), "https://host:8");
  EXPECT_EQ(url_origin("no url"), "");
}

TEST(ContentRange, IsTakenApart) {
  const auto range = parse_content_range("bytes 3-9/100");
  ASSERT_TRUE(range);
  EXPECT_EQ(range->first, 3);
  EXPECT_EQ(range->last, 9);
  EXPECT_EQ(range->total, 100);
  EXPECT_EQ(parse_content_range("bytes */7")->total, 7);
  EXPECT_EQ(parse_content_range("bytes 0-1/*")->total, -1);
  for (const char* bad : {"", "bytes", "bytes 9-3/10", "bytes 1-2", "bytes 1-2/3x", "lines 1-2/3"})
    EXPECT_FALSE(parse_content_range(bad)) << bad;
}

// ---- http_file.h -------------------------------------------------------------------------------

/// A server of one resource with ranges.
struct Resource {
  std::string bytes = std::string(3'000'000, 'a') + std::string(9'000'000, 'b') + "end";
  std::string etag = "\"1\"";

  TestReply answer(const TestRequest& request) const {
    const std::string range = request.header("range");
    size_t first = 0, last = 0;
    if (std::sscanf(range.c_str(), "bytes=%zu-%zu", &first, &last) != 2)
      return reply(200, bytes, "ETag: " + etag + "\r\n");
    const std::string if_range = request.header("if-range");
    if (!if_range.empty() && if_range != etag) return reply(200, bytes, "ETag: " + etag + "\r\n");
    last = std::min(last, bytes.size() - 1);
    return reply(206, bytes.substr(first, last - first + 1),
                 "ETag: " + etag + "\r\nContent-Range: bytes " + std::to_string(first) + "-" +
                     std::to_string(last) + "/" + std::to_string(bytes.size()) + "\r\n");
  }
};

TEST(HttpFile, ReadsRangesInParallelAndInSequence) {
  Resource resource;
  TestServer server([&](const auto& request) { return resource.answer(request); });
  auto file = open_http_file(quick(), server.url("/f"));
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->info.size, 12'000'003);
  EXPECT_EQ(file->info.etag, "\"1\"");
  auto input = open_range_file(file->source);
  EXPECT_EQ(input->ReadAt(2'999'998, 4).ValueOrDie()->ToString(), "aabb");
  EXPECT_EQ(input->ReadAt(0, 20'000'000).ValueOrDie()->ToString(), resource.bytes);
  auto stream = open_range_stream(file->source, 1);
  std::string got;
  for (;;) {
    auto piece = stream->Read(1'000'001).ValueOrDie();
    if (piece->size() == 0) break;
    got += piece->ToString();
  }
  EXPECT_EQ(got, resource.bytes.substr(1));
}

TEST(HttpFile, NoticesThatTheResourceChanged) {
  Resource resource;
  TestServer server([&](const auto& request) {
    if (request.number == 2) resource.etag = "\"2\"";
    return resource.answer(request);
  });
  auto file = open_http_file(quick(), server.url("/f"));
  ASSERT_TRUE(file.ok());
  auto read = open_range_file(file->source)->ReadAt(0, 10);
  ASSERT_FALSE(read.ok());
  const Error* error = error_in(read.status());
  ASSERT_TRUE(error);
  EXPECT_EQ(error->kind, ErrorKind::kCorruptData);
  EXPECT_NE(error->message.find("changed"), std::string::npos);
}

TEST(HttpFile, RefusesARangeThatWasNotAskedFor) {
  Resource resource;
  TestServer server([&](const auto& request) {
    if (request.number == 1) return resource.answer(request);
    return reply(206, "0123", "Content-Range: bytes 5-8/12000003\r\n");
  });
  auto file = open_http_file(quick(), server.url("/f"));
  ASSERT_TRUE(file.ok());
  auto read = open_range_file(file->source)->ReadAt(0, 4);
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(error_in(read.status())->kind, ErrorKind::kCorruptData);
}

TEST(HttpFile, SaysWhatIsNotThereAndWhatHasNoRanges) {
  TestServer missing([](const auto&) { return reply(404, ""); });
  EXPECT_EQ(open_http_file(quick(), missing.url("/f")).error().kind, ErrorKind::kNotFound);
  TestServer whole([](const auto&) { return reply(200, std::string(1000, 'x')); });
  EXPECT_EQ(open_http_file(quick(), whole.url("/f")).error().kind, ErrorKind::kUnsupported);
}

TEST(HttpFile, OpensAnEmptyResource) {
  TestServer server([](const auto&) { return reply(416, "", "Content-Range: bytes */0\r\n"); });
  auto file = open_http_file(quick(), server.url("/f"));
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->info.size, 0);
}

TEST(RangeStream, EndsWithTheErrorOfABlock) {
  Resource resource;
  TestServer server([&](const auto& request) {
    if (request.header("range").starts_with("bytes=8388608-")) return reply(403, "");
    return resource.answer(request);
  });
  auto file = open_http_file(quick(), server.url("/f"));
  auto stream = open_range_stream(file->source, 0);
  std::string memory(8'388'608, '\0');
  EXPECT_EQ(stream->Read(8'388'608, memory.data()).ValueOrDie(), 8'388'608);
  for (int again = 0; again < 2; ++again) {
    auto read = stream->Read(10, memory.data());
    ASSERT_FALSE(read.ok());
    EXPECT_NE(read.status().message().find("HTTP 403"), std::string::npos);
  }
}

TEST(RangeStream, WorksWithHardlyAnyMemory) {
  Resource resource;
  TestServer server([&](const auto& request) { return resource.answer(request); });
  auto file = open_http_file(quick(), server.url("/f"));
  const int64_t before = transfer_memory();
  set_transfer_memory(1);
  auto stream = open_range_stream(file->source, 0);
  std::string memory(resource.bytes.size(), '\0');
  EXPECT_EQ(stream->Read(int64_t(memory.size()), memory.data()).ValueOrDie(),
            int64_t(memory.size()));
  EXPECT_EQ(memory, resource.bytes);
  set_transfer_memory(before);
}

}  // namespace
}  // namespace lorry::net

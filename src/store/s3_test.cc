// The S3 client against a server that answers as the test wants.
#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/crc32c.h"
#include "net/test_server.h"
#include "store/s3_checksum.h"
#include "store/s3_client.h"
#include "store/s3_credentials.h"
#include "store/s3_object.h"
#include "store/s3_parts.h"
#include "store/s3_profile.h"
#include "store/s3_upload.h"
#include "store/s3_xml.h"

namespace lorry::store {
namespace {

using net::reply;
using net::TestReply;
using net::TestRequest;
using net::TestServer;

// ---- pieces ------------------------------------------------------------------------------------

TEST(S3Signer, SignsTheExampleOfTheDocumentation) {
  // "GET Object" in "Authenticating Requests: Using the Authorization Header", AWS documentation.
  Credentials credentials;
  credentials.access_key = "AKIAIOSFODNN7EXAMPLE";
  credentials.secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
  net::Headers headers = {{"Range", "bytes=0-9"}};
  S3Signer signer;
  signer.sign({"GET", "examplebucket.s3.amazonaws.com", "/test.txt", "", kEmptyPayload},
              credentials, "us-east-1", 1369353600, headers);
  EXPECT_EQ(headers.back().second,
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
            "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
            "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST(S3Signer, SortsAndEncodesTheQuery) {
  EXPECT_EQ(canonical_query({{"prefix", "a b/ü"}, {"list-type", "2"}, {"empty", ""}}),
            "empty=&list-type=2&prefix=a%20b%2F%C3%BC");
}

TEST(S3Xml, FindsElementsAndReplacesEntities) {
  const std::string xml =
      "<?xml version=\"1.0\"?><r xmlns=\"x\"><a k='v'>1 &lt;&amp;&#65;&#x42; 2</a><b/><x:a>3</x:a>"
      "<c><a>4</a></c></r>";
  EXPECT_EQ(xml_elements(xml, "a").size(), 3u);
  EXPECT_EQ(xml_text(xml, "a"), "1 <&AB 2");
  EXPECT_EQ(xml_text(xml, "b"), "");
  EXPECT_FALSE(xml_text(xml, "none"));
  EXPECT_TRUE(xml_elements("<a><a", "a").empty());
  EXPECT_EQ(xml_escape("\"a\"<&>"), "&quot;a&quot;&lt;&amp;&gt;");
}

TEST(S3Checksum, HasTheKnownValues) {
  EXPECT_EQ(crc64nvme("123456789"), 0xae8b14860a799888u);
  EXPECT_EQ(base64("any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw==");
  EXPECT_EQ(base64_crc(0xe3069283u), "4waSgw==");
}

TEST(S3Checksum, IsVerifiedWhateverItsKind) {
  const std::pair<const char*, const char*> checksums[] = {
      {"x-amz-checksum-crc32c", "4waSgw=="},
      {"x-amz-checksum-crc32", "y/Q5Jg=="},
      {"x-amz-checksum-crc64nvme", "rosUhgp5mIg="},
      {"x-amz-checksum-sha256", "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="}};
  for (const auto& [name, value] : checksums) {
    net::Response response;
    response.headers = {{name, value}};
    EXPECT_FALSE(wrong_checksum(response, "123456789")) << name;
    EXPECT_TRUE(wrong_checksum(response, "123456780")) << name;
  }
  net::Response of_parts;
  of_parts.headers = {{"x-amz-checksum-crc32c", "AAAAAA==-3"}};
  EXPECT_FALSE(wrong_checksum(of_parts, "123456789"));
}

TEST(S3Parts, StayBelowTenThousandForHundredsOfGigabytes) {
  int64_t total = 0;
  for (int number = 1; number <= kMostParts; ++number) {
    EXPECT_GE(part_size(number), 5 << 20);
    total += part_size(number);
  }
  EXPECT_GT(total, int64_t{400} << 30);
  EXPECT_EQ(part_size(1), part_size(5000));
}

TEST(S3Profile, IsReadAsAwsWritesIt) {
  const auto sections = parse_profiles(
      "# mine\n[default]\naws_access_key_id = A\n\n[profile other]\nregion=eu-x\ns3 =\n  "
      "max = 3\n; end\n[third]\nkey=a=b\n");
  EXPECT_EQ(sections.at("default").at("aws_access_key_id"), "A");
  EXPECT_EQ(sections.at("other").at("region"), "eu-x");
  EXPECT_FALSE(sections.at("other").contains("max"));
  EXPECT_EQ(sections.at("third").at("key"), "a=b");
}

// ---- a client of a server in the test -----------------------------------------------------------

class FixedCredentials : public CredentialSource {
 public:
  Result<Credentials> get() override {
    Credentials credentials;
    credentials.access_key = "AK" + std::to_string(renewals);
    credentials.secret_key = "the-secret";
    credentials.origin = "the test";
    return credentials;
  }
  bool renew() override {
    ++renewals;
    return true;
  }
  int renewals = 0;
};

const net::Client& quick() {
  static const net::Client client([] {
    net::RetryPolicy policy;
    policy.attempts = 4;
    policy.first_delay = 0.001;
    policy.max_delay = 0.01;
    policy.stall_seconds = 0.3;
    return policy;
  }());
  return client;
}

std::shared_ptr<S3Client> client_of(const TestServer& server, const std::string& region = "r1") {
  S3Place place;
  place.bucket = "b";
  place.endpoint = server.url();
  place.region = region;
  place.path_style = true;
  return std::make_shared<S3Client>(place, std::make_shared<FixedCredentials>(), quick());
}

std::string error_xml(const std::string& code, const std::string& message) {
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>" + code + "</Code><Message>" +
         message + "</Message></Error>";
}

struct Refusal {
  const char* name;
  int status;
  const char* code;
  ErrorKind kind;
  const char* says;  ///< part of the message
};

class S3Refusal : public ::testing::TestWithParam<Refusal> {};

TEST_P(S3Refusal, IsPutIntoPlainWords) {
  TestServer server([](const auto&) {
    return reply(GetParam().status, error_xml(GetParam().code, "told by the server"));
  });
  auto read = read_object(*client_of(server), "dir/x");
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.error().kind, GetParam().kind) << read.error().message;
  EXPECT_NE(read.error().message.find(GetParam().says), std::string::npos) << read.error().message;
  EXPECT_EQ(read.error().message.find("the-secret"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    Refusals, S3Refusal,
    ::testing::Values(
        Refusal{"unknown_key", 403, "InvalidAccessKeyId", ErrorKind::kInvalidInput,
                "does not know the access key (from the test)"},
        Refusal{"wrong_secret", 403, "SignatureDoesNotMatch", ErrorKind::kInvalidInput,
                "check AWS_SECRET_ACCESS_KEY"},
        Refusal{"denied", 403, "AccessDenied", ErrorKind::kInvalidInput,
                "s3://b/dir/x: access denied"},
        Refusal{"expired", 400, "ExpiredToken", ErrorKind::kInvalidInput, "has expired"},
        Refusal{"no_bucket", 404, "NoSuchBucket", ErrorKind::kNotFound, "no bucket b"},
        Refusal{"no_object", 404, "NoSuchKey", ErrorKind::kNotFound, "s3://b/dir/x is not there"},
        Refusal{"clock", 403, "RequestTimeTooSkewed", ErrorKind::kUnavailable, "set the clock"},
        Refusal{"region", 301, "PermanentRedirect", ErrorKind::kUsage, "set AWS_REGION"},
        Refusal{"other", 405, "MethodNotAllowed", ErrorKind::kUnavailable,
                "MethodNotAllowed: told by the server"}),
    [](const auto& info) { return info.param.name; });

TEST(S3Client, AdoptsTheRegionOfTheBucket) {
  std::string second;
  TestServer server([&](const auto& request) {
    if (request.number == 1) {
      return reply(400,
                   "<Error><Code>AuthorizationHeaderMalformed</Code><Message>wrong</Message>"
                   "<Region>eu-x</Region></Error>");
    }
    second = request.header("authorization");
    return reply(200, "bytes");
  });
  auto client = client_of(server);
  EXPECT_EQ(*read_object(*client, "x"), "bytes");
  EXPECT_NE(second.find("/eu-x/s3/aws4_request"), std::string::npos) << second;
  ASSERT_TRUE(read_object(*client, "x").ok());
  EXPECT_EQ(server.requests(), 3);
}

TEST(S3Client, AdoptsTheServersClock) {
  std::string second;
  TestServer server([&](const auto& request) {
    if (request.number == 1) {
      return reply(403, error_xml("RequestTimeTooSkewed", "too far"),
                   "Date: Fri, 24 May 2013 00:00:00 GMT\r\n");
    }
    second = request.header("x-amz-date");
    return reply(200, "bytes");
  });
  EXPECT_EQ(*read_object(*client_of(server), "x"), "bytes");
  EXPECT_EQ(second.substr(0, 12), "20130524T000") << second;
}

TEST(S3Client, RenewsCredentialsThatHaveExpired) {
  TestServer server([&](const auto& request) {
    const bool old = request.header("authorization").find("AK0/") != std::string::npos;
    return old ? reply(400, error_xml("ExpiredToken", "old")) : reply(200, "bytes");
  });
  EXPECT_EQ(*read_object(*client_of(server), "x"), "bytes");
}

TEST(S3Client, TriesAgainWhatOnlyTheCodeCallsPassing) {
  TestServer server([](const auto& request) {
    return request.number < 3 ? reply(400, error_xml("RequestTimeout", "idle"))
                              : reply(200, "bytes");
  });
  EXPECT_EQ(*read_object(*client_of(server), "x"), "bytes");
}

TEST(S3Client, SignsThePayloadForServersThatInsist) {
  TestServer server([](const auto& request) {
    if (request.header("x-amz-content-sha256") == "UNSIGNED-PAYLOAD") {
      return reply(400, error_xml("XAmzContentSHA256Mismatch", "no"));
    }
    return reply(200, "", "x-amz-checksum-crc32c: 4waSgw==\r\n");
  });
  const std::string body = "123456789";
  auto put = put_object(*client_of(server), "x", {body}, 9, crc32c(body), {});
  EXPECT_TRUE(put.ok()) << put.error().message;
}

TEST(S3Client, LeavesChecksumsOutForServersThatRefuseThem) {
  TestServer plain([](const auto& request) {
    if (!request.header("x-amz-checksum-crc32c").empty())
      return reply(501, error_xml("NotImplemented", "a header is not implemented"));
    if (request.method == "HEAD") return TestReply{"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n"};
    return reply(200, "");
  });
  const std::string body = "123456789";
  auto put = put_object(*client_of(plain), "x", {body}, 9, crc32c(body), {});
  EXPECT_TRUE(put.ok()) << put.error().message;
}

TEST(S3Client, SaysWhenAPutIsNotThereAfterwards) {
  TestServer server([](const auto& request) {
    if (request.method == "HEAD") return TestReply{"HTTP/1.1 200 X\r\nContent-Length: 4\r\n\r\n"};
    return reply(200, "");
  });
  const std::string body = "123456789";
  auto put = put_object(*client_of(server), "x", {body}, 9, crc32c(body), {});
  ASSERT_FALSE(put.ok());
  EXPECT_EQ(put.error().message, "s3://b/x: 9 bytes were written, the store has 4");
}

TEST(S3Client, AsksTheGuardBeforeEachTry) {
  int served = 0;
  TestServer server([&](const auto&) {
    ++served;
    return TestReply{"", TestReply::End::kReset};
  });
  const std::string body = "123456789";
  int asked = 0;
  const Guard guard = [&asked]() -> Result<> {
    if (++asked < 3) return {};
    return unavailable("the claim ran out meanwhile");
  };
  const auto put = put_object(*client_of(server), "x", {body}, 9, crc32c(body), guard);
  ASSERT_FALSE(put.ok());
  EXPECT_NE(put.error().message.find("the claim ran out"), std::string::npos);
  EXPECT_EQ(served, 2);
}

TEST(S3Object, NoticesBytesThatAreNotTheStoredOnes) {
  TestServer server(
      [](const auto&) { return reply(200, "123456780", "x-amz-checksum-crc32c: 4waSgw==\r\n"); });
  auto read = read_object(*client_of(server), "x");
  ASSERT_FALSE(read.ok());
  EXPECT_NE(read.error().message.find("s3://b/x"), std::string::npos);
  EXPECT_NE(read.error().message.find("checksum"), std::string::npos);
  EXPECT_NE(read.error().message.find("tries"), std::string::npos) << "it may be the network";
}

/// Ranges of an object, as a right server gives them.
TestReply part_of(const std::string& bytes, const TestRequest& request, const std::string& etag) {
  size_t first = 0, last = 0;
  const std::string range = request.header("range");
  if (std::sscanf(range.c_str(), "bytes=%zu-%zu", &first, &last) != 2)
    return reply(200, bytes, "ETag: " + etag + "\r\n");
  last = std::min(last, bytes.size() - 1);
  return reply(206, bytes.substr(first, last - first + 1),
               "ETag: " + etag + "\r\nContent-Range: bytes " + std::to_string(first) + "-" +
                   std::to_string(last) + "/" + std::to_string(bytes.size()) + "\r\n");
}

std::string random_bytes(size_t size) {
  std::mt19937_64 random(7);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = char(random());
  return bytes;
}

Result<std::string> read_to_end(const std::shared_ptr<const S3Client>& client) {
  LORRY_ASSIGN(auto stream, stream_object(client, "x", 0));
  std::string got;
  for (;;) {
    auto piece = stream->Read(1'000'000);
    if (!piece.ok()) return unavailable(piece.status().message());
    if ((*piece)->size() == 0) return got;
    got += (*piece)->ToString();
  }
}

TEST(S3Object, StreamsThroughFaults) {
  const std::string bytes = random_bytes(21'000'000);
  TestServer server([&](const auto& request) {
    auto right = part_of(bytes, request, "\"1\"");
    switch (request.number % 4) {
      case 0:
        return reply(503, error_xml("SlowDown", "please"));
      case 1:
        return cut(right, 1000, TestReply::End::kReset);
      case 2:
        return cut(right, 1000, TestReply::End::kClose);
      default:
        return right;
    }
  });
  // Four tries may meet only faults, since several requests are under way.
  S3Place place{"b", server.url(), "r1", true};
  net::RetryPolicy patient;
  patient.attempts = 100;
  patient.first_delay = patient.max_delay = 0.001;
  const net::Client http(patient);
  auto client = std::make_shared<S3Client>(place, std::make_shared<FixedCredentials>(), http);
  auto got = read_to_end(client);
  ASSERT_TRUE(got.ok()) << got.error().message;
  EXPECT_TRUE(*got == bytes);
}

TEST(S3Object, IsOneVersionFromStartToEnd) {
  const std::string bytes = random_bytes(21'000'000);
  TestServer server([&](const auto& request) {
    if (request.number > 2) return reply(412, error_xml("PreconditionFailed", "If-Match"));
    EXPECT_EQ(request.header("if-match"), request.number == 1 ? "" : "\"1\"");
    return part_of(bytes, request, "\"1\"");
  });
  auto got = read_to_end(client_of(server));
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.error().message, "s3://b/x: was replaced while it was read; run again");
}

TEST(S3Object, NamesTheReasonThatAHeadHides) {
  TestServer server([](const auto& request) {
    if (request.method == "HEAD") return TestReply{"HTTP/1.1 403 X\r\n\r\n"};
    return reply(403, error_xml("SignatureDoesNotMatch", "no"));
  });
  auto head = head_object(*client_of(server), "x");
  ASSERT_FALSE(head.ok());
  EXPECT_NE(head.error().message.find("AWS_SECRET_ACCESS_KEY"), std::string::npos);
}

TEST(S3Upload, SaysThatCompletingFailedThoughTheStatusIsFine) {
  std::atomic<int> aborted = 0;
  TestServer server([&](const auto& request) {
    if (request.method == "DELETE") ++aborted;
    if (request.method == "POST" && request.target.find("uploads") != std::string::npos)
      return reply(200, "<R><UploadId>u1</UploadId></R>");
    if (request.method == "POST") return reply(200, "  " + error_xml("InternalError", "sorry"));
    return reply(200, "", "ETag: \"p\"\r\n");
  });
  auto pending = start_upload(client_of(server), "x");
  const std::string bytes(9 << 20, 'x');
  ASSERT_TRUE(pending->stream().Write(bytes.data(), int64_t(bytes.size())).ok());
  auto done = pending->commit({});
  ASSERT_FALSE(done.ok());
  EXPECT_NE(done.error().message.find("InternalError while its parts were put together"),
            std::string::npos)
      << done.error().message;
  EXPECT_EQ(aborted, 1);
}

TEST(S3Upload, EndsWithTheErrorOfAPartAndLeavesNothing) {
  std::atomic<int> aborted = 0;
  TestServer server([&](const auto& request) {
    if (request.method == "DELETE") ++aborted;
    if (request.method == "POST") return reply(200, "<R><UploadId>u1</UploadId></R>");
    return reply(403, error_xml("AccessDenied", "no"));
  });
  auto pending = start_upload(client_of(server), "x");
  const std::string bytes(9 << 20, 'x');
  (void)pending->stream().Write(bytes.data(), int64_t(bytes.size()));
  auto done = pending->commit({});
  ASSERT_FALSE(done.ok());
  EXPECT_NE(done.error().message.find("s3://b/x: access denied"), std::string::npos);
  EXPECT_EQ(aborted, 1);
}

// ---- credentials and addresses from the environment
// ----------------------------------------------

/// Sets variables for one test, and takes away all others that matter.
class S3Environment : public ::testing::Test {
 protected:
  S3Environment() {
    for (const char* name : kNames) {
      const char* value = std::getenv(name);
      saved_.emplace_back(name, value ? value : "");
      ::unsetenv(name);
    }
    set("HOME", "/nonexistent");
    set("AWS_EC2_METADATA_DISABLED", "true");
  }
  ~S3Environment() override {
    for (const auto& [name, value] : saved_) {
      if (value.empty())
        ::unsetenv(name.c_str());
      else
        set(name.c_str(), value);
    }
  }
  static void set(const char* name, const std::string& value) { ::setenv(name, value.c_str(), 1); }

  static constexpr const char* kNames[] = {"HOME",
                                           "AWS_ACCESS_KEY_ID",
                                           "AWS_SECRET_ACCESS_KEY",
                                           "AWS_SESSION_TOKEN",
                                           "AWS_PROFILE",
                                           "AWS_SHARED_CREDENTIALS_FILE",
                                           "AWS_CONFIG_FILE",
                                           "AWS_REGION",
                                           "AWS_DEFAULT_REGION",
                                           "AWS_ENDPOINT_URL_S3",
                                           "AWS_ENDPOINT_URL",
                                           "AWS_ENDPOINT_URL_STS",
                                           "AWS_ENDPOINT_URL_SSO",
                                           "LORRY_S3_ADDRESSING",
                                           "LORRY_S3_ANONYMOUS",
                                           "AWS_WEB_IDENTITY_TOKEN_FILE",
                                           "AWS_ROLE_ARN",
                                           "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                                           "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                                           "AWS_EC2_METADATA_DISABLED",
                                           "AWS_EC2_METADATA_SERVICE_ENDPOINT"};
  std::vector<std::pair<std::string, std::string>> saved_;
};

TEST_F(S3Environment, SaysWhereItLookedForCredentials) {
  auto found = standard_credentials()->get();
  ASSERT_FALSE(found.ok());
  EXPECT_EQ(found.error().kind, ErrorKind::kUsage);
  for (const char* part : {"AWS_ACCESS_KEY_ID", "profile default", "/nonexistent/.aws/credentials",
                           "role of this machine"}) {
    EXPECT_NE(found.error().message.find(part), std::string::npos) << found.error().message;
  }
}

TEST_F(S3Environment, TakesKeysFromTheEnvironment) {
  set("AWS_ACCESS_KEY_ID", "A");
  auto half = standard_credentials()->get();
  ASSERT_FALSE(half.ok());
  EXPECT_NE(half.error().message.find("AWS_SECRET_ACCESS_KEY is not"), std::string::npos);
  set("AWS_SECRET_ACCESS_KEY", "S");
  set("AWS_SESSION_TOKEN", "T");
  auto found = standard_credentials()->get();
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->access_key + found->secret_key + found->token, "AST");
}

TEST_F(S3Environment, TakesKeysFromAProfile) {
  const auto file =
      std::filesystem::temp_directory_path() / ("lorry-credentials-" + std::to_string(::getpid()));
  std::ofstream(file) << "[work]\naws_access_key_id=A\naws_secret_access_key=S\nregion=eu-x\n";
  set("AWS_SHARED_CREDENTIALS_FILE", file.string());
  set("AWS_PROFILE", "work");
  EXPECT_EQ(standard_credentials()->get()->secret_key, "S");
  EXPECT_EQ(find_s3_place("b")->region, "eu-x");
  set("AWS_PROFILE", "play");
  EXPECT_NE(standard_credentials()->get().error().message.find("no such profile"),
            std::string::npos);
  std::filesystem::remove(file);
}

std::string keys_document(std::time_t expires) {
  std::tm utc{};
  ::gmtime_r(&expires, &utc);
  char text[40];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return std::string(
             "{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\",\"Token\":\"T\","
             "\"Expiration\":\"") +
         text + "\"}";
}

/// A HOME with ~/.aws/config in it.
class S3ProfileKeys : public S3Environment {
 protected:
  void SetUp() override {
    S3Environment::SetUp();
    home_ = std::filesystem::temp_directory_path() / ("lorry-home-" + std::to_string(::getpid()));
    std::filesystem::create_directories(home_ / ".aws/sso/cache");
    set("HOME", home_.string());
    set("AWS_PROFILE", "work");
  }
  void TearDown() override {
    std::filesystem::remove_all(home_);
    S3Environment::TearDown();
  }
  void config(const std::string& text) { std::ofstream(home_ / ".aws/config") << text; }
  std::string problem() {
    const auto found = standard_credentials()->get();
    return found.ok() ? "" : found.error().message;
  }

  std::filesystem::path home_;
};

TEST_F(S3ProfileKeys, AreThoseThatAProgramPrints) {
  config(
      "[profile work]\ncredential_process = printf '{\"Version\": 1, \"AccessKeyId\": \"A\", "
      "\"SecretAccessKey\": \"S\", \"SessionToken\": \"T\"}'\n");
  const auto found = standard_credentials()->get();
  ASSERT_TRUE(found.ok()) << found.error().message;
  EXPECT_EQ(found->access_key + found->secret_key + found->token, "AST");
  config("[profile work]\ncredential_process = exit 3\n");
  EXPECT_NE(problem().find("credential_process of profile work: it ended with status 3"),
            std::string::npos);
  config("[profile work]\ncredential_process = echo secret\n");
  EXPECT_EQ(problem().find("secret"), std::string::npos) << "what it prints may be keys";
}

TEST_F(S3ProfileKeys, AreThoseOfARoleThatAnotherRoleMayTakeOn) {
  std::vector<std::string> asked;
  TestServer server([&](const auto& request) {
    const std::string role = request.body.find("role%2Fsecond") == std::string::npos ? "1" : "2";
    asked.push_back(role + " " + request.header("authorization"));
    EXPECT_EQ(request.header("x-amz-security-token"), role == "1" ? "" : "T1");
    if (role == "2") EXPECT_NE(request.body.find("ExternalId=me"), std::string::npos);
    return reply(200, "<R><Credentials><AccessKeyId>A" + role + "</AccessKeyId><SecretAccessKey>S" +
                          role + "</SecretAccessKey><SessionToken>T" + role +
                          "</SessionToken></Credentials></R>");
  });
  set("AWS_ENDPOINT_URL_STS", server.url());
  config(
      "[profile work]\nrole_arn = arn:aws:iam::1:role/second\nsource_profile = first\n"
      "external_id = me\nregion = eu-x\n"
      "[profile first]\nrole_arn = arn:aws:iam::1:role/first\nsource_profile = first\n"
      "aws_access_key_id = A0\naws_secret_access_key = S0\n");
  const auto found = standard_credentials()->get();
  ASSERT_TRUE(found.ok()) << found.error().message;
  EXPECT_EQ(found->token, "T2");
  ASSERT_EQ(asked.size(), 2u);
  EXPECT_NE(asked[0].find("Credential=A0/"), std::string::npos) << asked[0];
  EXPECT_NE(asked[0].find("/us-east-1/sts/aws4_request"), std::string::npos) << asked[0];
  EXPECT_NE(asked[1].find("Credential=A1/"), std::string::npos) << asked[1];
  EXPECT_NE(asked[1].find("/eu-x/sts/aws4_request"), std::string::npos) << asked[1];

  config(
      "[profile work]\nrole_arn = r\nsource_profile = b\n"
      "[profile b]\nrole_arn = r\nsource_profile = work\n");
  EXPECT_NE(problem().find("leads back to itself"), std::string::npos) << problem();
  config("[profile work]\nrole_arn = r\nsource_profile = gone\n");
  EXPECT_NE(problem().find("no source_profile gone"), std::string::npos) << problem();
  config("[profile work]\nrole_arn = r\n");
  EXPECT_NE(problem().find("neither source_profile nor"), std::string::npos) << problem();
}

TEST_F(S3ProfileKeys, AreThoseOfARoleByAWebIdentityOrByTheEnvironment) {
  TestServer server([&](const auto& request) {
    EXPECT_NE(request.body.find("WebIdentityToken=identity"), std::string::npos);
    return reply(200, "<R><AccessKeyId>A</AccessKeyId><SecretAccessKey>S</SecretAccessKey></R>");
  });
  set("AWS_ENDPOINT_URL_STS", server.url());
  std::ofstream(home_ / "token") << "identity\n";
  config("[profile work]\nrole_arn = r\nweb_identity_token_file = " + (home_ / "token").string());
  EXPECT_EQ(problem(), "");
  config("[profile work]\nrole_arn = r\ncredential_source = Environment\n");
  EXPECT_NE(problem().find("credential_source Environment has no keys"), std::string::npos);
}

TEST_F(S3ProfileKeys, AreThoseOfSingleSignOn) {
  TestServer server([&](const auto& request) {
    EXPECT_EQ(request.target, "/federation/credentials?role_name=Dev&account_id=123");
    if (request.header("x-amz-sso_bearer_token") != "good") return reply(401, "{}");
    return reply(200, R"({"roleCredentials": {"accessKeyId": "A", "secretAccessKey": "S",
                          "sessionToken": "T", "expiration": 4102444800000}})");
  });
  set("AWS_ENDPOINT_URL_SSO", server.url());
  config(
      "[profile work]\nsso_session = my\nsso_account_id = 123\nsso_role_name = Dev\n"
      "[sso-session my]\nsso_start_url = https://x.awsapps.com/start\nsso_region = eu-x\n");
  EXPECT_NE(problem().find("run aws sso login --profile work"), std::string::npos) << problem();
  // Named by the SHA-1 of "my".
  const auto kept = home_ / ".aws/sso/cache/3ece1471f44f63177cbc35ba0b904e0c096b6783.json";
  const auto token = [&](const std::string& value, const std::string& until) {
    std::ofstream(kept) << "{\"accessToken\": \"" + value + "\", \"expiresAt\": \"" + until + "\"}";
  };
  token("good", "2100-01-01T00:00:00Z");
  const auto found = standard_credentials()->get();
  ASSERT_TRUE(found.ok()) << found.error().message;
  EXPECT_EQ(found->token, "T");
  EXPECT_EQ(found->expires, 4102444800);
  token("good", "2020-01-01T00:00:00Z");
  EXPECT_NE(problem().find("has expired"), std::string::npos) << problem();
  token("withdrawn", "2100-01-01T00:00:00Z");
  EXPECT_NE(problem().find("no longer valid"), std::string::npos) << problem();
}

TEST_F(S3Environment, TakesKeysFromTheInstancesRoleAndRenewsThem) {
  std::atomic<int> asked = 0;
  TestServer server([&](const auto& request) {
    if (request.method == "PUT") return reply(200, "session");
    EXPECT_EQ(request.header("x-aws-ec2-metadata-token"), "session");
    if (request.target.ends_with("/")) return reply(200, "role");
    EXPECT_TRUE(request.target.ends_with("/security-credentials/role"));
    return reply(200, keys_document(std::time(nullptr) + (++asked == 1 ? 60 : 3600)));
  });
  ::unsetenv("AWS_EC2_METADATA_DISABLED");
  set("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url());
  auto source = standard_credentials();
  EXPECT_EQ(source->get()->token, "T");
  EXPECT_EQ(source->get()->token, "T");  // the first ones end within five minutes
  EXPECT_EQ(source->get()->token, "T");
  EXPECT_EQ(asked, 2);
}

TEST_F(S3Environment, TakesKeysFromTheContainer) {
  TestServer server(
      [&](const auto& request) { return reply(200, keys_document(std::time(nullptr) + 3600)); });
  set("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.url("/keys"));
  EXPECT_EQ(standard_credentials()->get()->secret_key, "S");
}

TEST_F(S3Environment, TakesKeysForAWebIdentity) {
  const auto file =
      std::filesystem::temp_directory_path() / ("lorry-token-" + std::to_string(::getpid()));
  std::ofstream(file) << "identity\n";
  TestServer server([&](const auto& request) {
    EXPECT_NE(request.body.find("WebIdentityToken=identity"), std::string::npos);
    return reply(200,
                 "<R><Credentials><AccessKeyId>A</AccessKeyId><SecretAccessKey>S"
                 "</SecretAccessKey><SessionToken>T</SessionToken></Credentials></R>");
  });
  set("AWS_WEB_IDENTITY_TOKEN_FILE", file.string());
  set("AWS_ROLE_ARN", "arn:aws:iam::1:role/x");
  set("AWS_ENDPOINT_URL_STS", server.url());
  EXPECT_EQ(standard_credentials()->get()->token, "T");
  std::filesystem::remove(file);
}

TEST_F(S3Environment, DecidesHowABucketIsAddressed) {
  EXPECT_FALSE(find_s3_place("b")->path_style);
  EXPECT_TRUE(find_s3_place("a.b")->path_style);
  set("AWS_ENDPOINT_URL", "http://127.0.0.1:7070/");
  EXPECT_TRUE(find_s3_place("b")->path_style);
  EXPECT_EQ(find_s3_place("b")->endpoint, "http://127.0.0.1:7070");
  set("AWS_ENDPOINT_URL_S3", "https://s3.eu-central-1.amazonaws.com");
  EXPECT_FALSE(find_s3_place("b")->path_style);
  set("LORRY_S3_ADDRESSING", "path");
  EXPECT_TRUE(find_s3_place("b")->path_style);
  set("LORRY_S3_ADDRESSING", "sideways");
  EXPECT_EQ(find_s3_place("b").error().kind, ErrorKind::kUsage);
  set("LORRY_S3_ADDRESSING", "");
  set("AWS_ENDPOINT_URL_S3", "localhost:9000");
  EXPECT_EQ(find_s3_place("b").error().kind, ErrorKind::kUsage);
}

TEST_F(S3Environment, TakesTheRegionAutoWhereItIsKnown) {
  set("AWS_REGION", "auto");
  EXPECT_EQ(find_s3_place("b")->region, "us-east-1");
  set("AWS_ENDPOINT_URL_S3", "https://x.r2.cloudflarestorage.com");
  EXPECT_EQ(find_s3_place("b")->region, "auto");
}

TEST_F(S3Environment, AsksAVirtualHost) {
  TestServer server(
      [](const auto& request) { return reply(200, request.header("host") + request.target); });
  S3Place place{"b", server.url(), "r1", false};
  // Nobody resolves b.127.0.0.1; the name that is signed and asked for is what counts.
  S3Client client(place, std::make_shared<FixedCredentials>(), quick());
  auto response = client.send({});
  ASSERT_FALSE(response.ok());
  EXPECT_NE(response.error().message.find("http://b.127.0.0.1"), std::string::npos)
      << response.error().message;
}

}  // namespace
}  // namespace lorry::store

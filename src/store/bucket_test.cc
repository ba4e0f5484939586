// The contract that every store keeps, run once a store; a new store adds one line at the end and
// names what it cannot do.
#include "store/bucket.h"

#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "base/crc32c.h"
#include "store/layout.h"
#include "store/s3_server_fixture.h"

namespace lorry::store {
namespace {

namespace fs = std::filesystem;

std::string scratch_dir() {
  static int serial = 0;
  const fs::path dir = fs::temp_directory_path() / ("lorry-store-" + std::to_string(::getpid()) +
                                                    "-" + std::to_string(serial++));
  fs::remove_all(dir);
  return dir.string();
}

struct StoreUnderTest {
  std::string name;
  std::function<std::string()> new_uri;  ///< of an empty bucket; local: not there yet
  bool is_local = true;
  bool has_fine_clock = true;  ///< two writes in the same second have two versions
  /// Why it cannot be tested here; empty: it can.
  std::function<std::string()> missing = [] { return std::string(); };
};

void PrintTo(const StoreUnderTest& store, std::ostream* out) { *out << store.name; }

std::string missing_s3() { return S3Server::shared().missing(); }

/// gs:// and az:// are tested against whatever emulator someone runs: the variable names a bucket
/// that is there, and each test takes a prefix of its own in it.
StoreUnderTest emulated(const char* name, const char* variable) {
  const auto uri = [variable] {
    const char* value = std::getenv(variable);
    return std::string(value ? value : "");
  };
  const auto fresh = [uri] {
    static int serial = 0;
    return uri() + "/t" + std::to_string(::getpid()) + "-" + std::to_string(serial++);
  };
  const auto missing = [uri, variable] {
    return uri().empty() ? std::string(variable) + " names no bucket" : std::string();
  };
  return {name, fresh, false, false, missing};
}

class StoreContract : public ::testing::TestWithParam<StoreUnderTest> {
 protected:
  void SetUp() override {
    if (const std::string why = GetParam().missing(); !why.empty()) GTEST_SKIP() << why;
    uri_ = GetParam().new_uri();
    auto opened = Bucket::open(uri_, true);
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    bucket_ = *opened;
  }
  void TearDown() override {
    if (GetParam().is_local) fs::remove_all(uri_);
  }

  std::vector<std::string> names(std::string_view dir, bool recursive = false) {
    std::vector<std::string> paths;
    auto found = bucket_->list(dir, recursive);
    EXPECT_TRUE(found.ok());
    for (const auto& info : *found) paths.push_back(info.path);
    return paths;
  }

  std::string uri_;
  std::shared_ptr<Bucket> bucket_;
};

using Paths = std::vector<std::string>;

TEST_P(StoreContract, ReadsBackWhatWasWritten) {
  const std::string bytes("a\0b\n", 4);
  ASSERT_TRUE(bucket_->write("raw/org/name/0/x.bin", bytes).ok());
  EXPECT_EQ(*bucket_->read("raw/org/name/0/x.bin"), bytes);
  auto info = bucket_->stat("raw/org/name/0/x.bin");
  ASSERT_TRUE(info.ok() && info->has_value());
  EXPECT_EQ((*info)->size, 4);
  EXPECT_FALSE((*info)->is_directory);
}

TEST_P(StoreContract, KeepsEmptyObjects) {
  ASSERT_TRUE(bucket_->write("empty", "").ok());
  EXPECT_EQ(*bucket_->read("empty"), "");
}

TEST_P(StoreContract, ReplacesAnObject) {
  ASSERT_TRUE(bucket_->write("x", "old and long").ok());
  ASSERT_TRUE(bucket_->write("x", "new").ok());
  EXPECT_EQ(*bucket_->read("x"), "new");
}

TEST_P(StoreContract, SaysThatAMissingObjectIsNotFound) {
  EXPECT_FALSE(*bucket_->exists("nothing"));
  auto read = bucket_->read("nothing");
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.error().kind, ErrorKind::kNotFound);
  EXPECT_NE(read.error().message.find("nothing"), std::string::npos);
}

TEST_P(StoreContract, ListsChildrenByName) {
  for (const char* path : {"d/b", "d/a", "d/10/x", "e"})
    ASSERT_TRUE(bucket_->write(path, "1").ok());
  EXPECT_EQ(names("d"), (Paths{"d/10", "d/a", "d/b"}));
  EXPECT_EQ(names("d", true), (Paths{"d/10/x", "d/a", "d/b"}));
  EXPECT_EQ(names(""), (Paths{"d", "e"}));
  EXPECT_EQ(names("nowhere"), Paths{});
}

TEST_P(StoreContract, HidesAnObjectUntilItIsCommitted) {
  auto writer = bucket_->create("d/x");
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->write("half").ok());
  EXPECT_FALSE(*bucket_->exists("d/x"));
  EXPECT_EQ(names("", true), Paths{});
  ASSERT_TRUE((*writer)->write(" whole").ok());
  ASSERT_TRUE((*writer)->commit().ok());
  EXPECT_EQ(*bucket_->read("d/x"), "half whole");
}

TEST_P(StoreContract, LeavesNothingOfAnAbandonedWriter) {
  { auto writer = bucket_->create("d/x"); }
  EXPECT_FALSE(*bucket_->exists("d/x"));
  EXPECT_EQ(names("", true), Paths{});
}

TEST_P(StoreContract, RemovesObjectsAndDirectories) {
  for (const char* path : {"d/a", "d/b/c", "e"}) ASSERT_TRUE(bucket_->write(path, "1").ok());
  ASSERT_TRUE(bucket_->remove("d").ok());
  EXPECT_EQ(names("", true), Paths{"e"});
  EXPECT_TRUE(bucket_->remove("d").ok());
}

TEST_P(StoreContract, MovesAnObjectInPlaceOfAnother) {
  const std::string name = "d/h\xc3\xa9 +%x";
  ASSERT_TRUE(bucket_->write(name, "new").ok());
  ASSERT_TRUE(bucket_->write("e/y", "old").ok());
  const auto moved = bucket_->move(name, "e/y");
  ASSERT_TRUE(moved.ok()) << moved.error().message;
  EXPECT_EQ(*bucket_->read("e/y"), "new");
  EXPECT_EQ(names("", true).back(), "e/y");
  EXPECT_FALSE(*bucket_->exists(name));
  EXPECT_FALSE(bucket_->move("nothing", "e/y").ok());
  EXPECT_EQ(*bucket_->read("e/y"), "new");
}

TEST_P(StoreContract, ReadsRanges) {
  ASSERT_TRUE(bucket_->write("x", "0123456789").ok());
  auto input = bucket_->open_input("x");
  ASSERT_TRUE(input.ok());
  EXPECT_EQ((*input)->ReadAt(3, 4).ValueOrDie()->ToString(), "3456");
}

TEST_P(StoreContract, StreamsFromAnOffsetToTheEnd) {
  ASSERT_TRUE(bucket_->write("x", "0123456789").ok());
  for (int64_t offset : {0, 4, 10}) {
    auto stream = bucket_->open_stream("x", offset);
    ASSERT_TRUE(stream.ok()) << stream.error().message;
    EXPECT_EQ((*stream)->Read(100).ValueOrDie()->ToString(),
              std::string("0123456789").substr(size_t(offset)));
    EXPECT_EQ((*stream)->Read(100).ValueOrDie()->size(), 0);
  }
}

TEST_P(StoreContract, MapsObjects) {
  ASSERT_TRUE(bucket_->write("x", "0123456789").ok());
  ASSERT_TRUE(bucket_->write("empty", "").ok());
  auto mapped = bucket_->open_mapped("x");
  ASSERT_TRUE(mapped.ok()) << mapped.error().message;
  EXPECT_TRUE((*mapped)->supports_zero_copy());
  EXPECT_EQ((*mapped)->ReadAt(3, 4).ValueOrDie()->ToString(), "3456");
  ASSERT_TRUE(bucket_->open_mapped("empty").ok());
  EXPECT_EQ(bucket_->open_mapped("nothing").error().kind, ErrorKind::kNotFound);
}

TEST_P(StoreContract, SaysAtOpenThatAnObjectIsMissing) {
  EXPECT_EQ(bucket_->open_input("nothing").error().kind, ErrorKind::kNotFound);
  EXPECT_EQ(bucket_->open_stream("nothing").error().kind, ErrorKind::kNotFound);
}

TEST_P(StoreContract, AGuardKeepsObjectsFromAppearingAndFromVanishing) {
  bool consent = true;
  const auto guarded = bucket_->guarded([&consent]() -> Result<> {
    if (consent) return {};
    return unavailable("not now");
  });
  ASSERT_TRUE(guarded->write("d/x", "before").ok());
  auto writer = guarded->create("d/x");
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->write("after").ok());
  consent = false;
  const auto committed = (*writer)->commit();
  ASSERT_FALSE(committed.ok());
  EXPECT_EQ(committed.error().message, "not now");
  EXPECT_EQ(guarded->remove("d/x").error().message, "not now");
  EXPECT_EQ(*bucket_->read("d/x"), "before");
  EXPECT_EQ(names("", true), Paths{"d/x"});
}

TEST_P(StoreContract, TellsWhenAnObjectWasWritten) {
  ASSERT_TRUE(bucket_->write("x", "1").ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  ASSERT_TRUE(bucket_->write("y", "2").ok());
  const auto found = bucket_->list("");
  ASSERT_TRUE(found.ok());
  ASSERT_EQ(found->size(), 2u);
  const int64_t apart = (*found)[1].modified_ms - (*found)[0].modified_ms;
  EXPECT_GT((*found)[0].modified_ms, int64_t{1'700'000'000'000});
  EXPECT_GE(apart, 1000);
  EXPECT_LT(apart, 60'000);
}

TEST_P(StoreContract, KnowsSizeAndChecksumOfWhatWasWritten) {
  auto writer = bucket_->create("x");
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->write("12345").ok());
  ASSERT_TRUE((*writer)->write("6789").ok());
  ASSERT_TRUE((*writer)->commit().ok());
  EXPECT_EQ((*writer)->size(), 9);
  EXPECT_EQ((*writer)->crc32c(), 0xe3069283u);
}

std::string random_bytes(size_t size) {
  std::mt19937_64 random(size);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = char(random());
  return bytes;
}

TEST_P(StoreContract, KeepsLargeObjectsWrittenInSmallAndLargePieces) {
  const std::string bytes = random_bytes(45'000'001);
  auto writer = bucket_->create("large");
  ASSERT_TRUE(writer.ok());
  size_t at = 0;
  for (size_t size = 1; at < bytes.size(); size = size * 3 % 7'000'001) {
    const size_t n = std::min(size, bytes.size() - at);
    auto buffer = std::make_shared<arrow::Buffer>(
        reinterpret_cast<const uint8_t*>(bytes.data()) + at, int64_t(n));
    ASSERT_TRUE((*writer)->stream().Write(buffer).ok());
    at += n;
  }
  ASSERT_TRUE((*writer)->commit().ok());
  EXPECT_EQ((*writer)->size(), int64_t(bytes.size()));
  EXPECT_EQ((*writer)->crc32c(), crc32c(bytes));
  EXPECT_TRUE(*bucket_->read("large") == bytes);
  auto input = *bucket_->open_input("large");
  EXPECT_EQ(*input->GetSize(), int64_t(bytes.size()));
  EXPECT_TRUE(input->ReadAt(1'000'000, 40'000'000).ValueOrDie()->ToString() ==
              bytes.substr(1'000'000, 40'000'000));
  auto mapped = *bucket_->open_mapped("large");
  EXPECT_TRUE(mapped->ReadAt(44'999'990, 100).ValueOrDie()->ToString() == bytes.substr(44'999'990));
}

TEST_P(StoreContract, LeavesNothingOfALargeAbandonedWriter) {
  {
    auto writer = bucket_->create("d/large");
    ASSERT_TRUE((*writer)->write(random_bytes(30'000'000)).ok());
  }
  EXPECT_EQ(names("", true), Paths{});
}

TEST_P(StoreContract, IsWrittenAndReadByManyThreads) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      const std::string path = "d/" + std::to_string(i),
                        bytes = random_bytes(3'000'000 + size_t(i));
      EXPECT_TRUE(bucket_->write(path, bytes).ok());
      auto read = bucket_->read(path);
      EXPECT_TRUE(read.ok() && *read == bytes);
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(names("d").size(), 8u);
}

TEST_P(StoreContract, KeepsUnusualNames) {
  for (const char* path : {"d/a b", "d/ü", "d/a+b=c&d?e#f%20", "d/(x)'y'\"z\""}) {
    ASSERT_TRUE(bucket_->write(path, path).ok()) << path;
    auto read = bucket_->read(path);
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_EQ(*read, path);
  }
  EXPECT_EQ(names("d").size(), 4u);
  ASSERT_TRUE(bucket_->remove("d").ok());
  EXPECT_EQ(names("d"), Paths{});
}

TEST_P(StoreContract, ListsMoreThanAPage) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = t; i < 1100; i += 8)
        EXPECT_TRUE(bucket_->write("many/" + std::to_string(i), "").ok());
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(names("many").size(), 1100u);
  ASSERT_TRUE(bucket_->remove("many").ok());
  EXPECT_EQ(names("many"), Paths{});
}

TEST_P(StoreContract, TellsVersionsOfAnObjectApart) {
  ASSERT_TRUE(bucket_->write("x", "old").ok());
  const std::string before = (**bucket_->stat("x")).etag;
  EXPECT_EQ((*bucket_->list(""))[0].etag, before);
  // A tick of the clock that times of change are told by: Azure's is a second.
  const bool coarse = !GetParam().has_fine_clock;
  std::this_thread::sleep_for(std::chrono::milliseconds(coarse ? 1100 : 20));
  ASSERT_TRUE(bucket_->write("x", "new").ok());
  EXPECT_FALSE(before.empty());
  EXPECT_NE((**bucket_->stat("x")).etag, before);
}

TEST_P(StoreContract, RefusesNamesThatLeaveTheBucket) {
  for (const char* path : {"", "/etc/x", "../x", "a/../../x", "a//b", "a/./b", "a/"}) {
    auto wrote = bucket_->write(path, "1");
    ASSERT_FALSE(wrote.ok()) << path;
    EXPECT_EQ(wrote.error().kind, ErrorKind::kInvalidInput) << path;
  }
}

TEST_P(StoreContract, KeepsInfoAsJson) {
  EXPECT_FALSE(bucket_->read_info("raw/ds")->has_value());
  Json info;
  info["count"] = 3;
  ASSERT_TRUE(bucket_->write_info("raw/ds", info).ok());
  EXPECT_EQ((**bucket_->read_info("raw/ds"))["count"], 3);
  ASSERT_TRUE(bucket_->write("raw/ds/info.json", "{").ok());
  EXPECT_EQ(bucket_->read_info("raw/ds").error().kind, ErrorKind::kCorruptData);
}

INSTANTIATE_TEST_SUITE_P(
    Stores, StoreContract,
    ::testing::Values(
        StoreUnderTest{"local", scratch_dir},
        StoreUnderTest{"s3", [] { return S3Server::shared().new_bucket(); }, false, true,
                       missing_s3},
        StoreUnderTest{"s3_prefix", [] { return S3Server::shared().new_bucket() + "/some/prefix"; },
                       false, true, missing_s3},
        emulated("gs", "LORRY_TEST_GS_BUCKET"), emulated("az", "LORRY_TEST_AZ_BUCKET")),
    [](const auto& info) { return info.param.name; });

TEST(RemoteBucket, SaysWhatIsWrongWithAName) {
  for (const char* uri : {"s3://", "s3:///x", "s3://a b", "gs://", "az:///x"}) {
    auto opened = Bucket::open(uri, true);
    ASSERT_FALSE(opened.ok()) << uri;
    EXPECT_EQ(opened.error().kind, ErrorKind::kUsage) << opened.error().message;
  }
}

TEST(RemoteBucket, AsksForTheAccountOfAContainer) {
  if (std::getenv("AZURE_STORAGE_ACCOUNT") || std::getenv("AZURE_STORAGE_CONNECTION_STRING"))
    GTEST_SKIP() << "there is one in the environment";
  auto opened = Bucket::open("az://b", true);
  ASSERT_FALSE(opened.ok());
  EXPECT_NE(opened.error().message.find("AZURE_STORAGE_ACCOUNT"), std::string::npos);
}

TEST(RemoteBucket, SaysThatAnS3BucketIsMissing) {
  if (const std::string why = missing_s3(); !why.empty()) GTEST_SKIP() << why;
  auto opened = Bucket::open("s3://no-such-bucket-here", true);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().kind, ErrorKind::kNotFound);
  EXPECT_NE(opened.error().message.find("no bucket no-such-bucket-here"), std::string::npos);
}

TEST(RemoteBucket, SaysThatAKeyIsWrong) {
  if (const std::string why = missing_s3(); !why.empty()) GTEST_SKIP() << why;
  const std::string uri = S3Server::shared().new_bucket();
  const std::string right = std::getenv("AWS_SECRET_ACCESS_KEY");
  ::setenv("AWS_SECRET_ACCESS_KEY", "wrong", 1);
  auto opened = Bucket::open(uri, true);
  ::setenv("AWS_SECRET_ACCESS_KEY", right.c_str(), 1);
  ASSERT_FALSE(opened.ok());
  EXPECT_NE(opened.error().message.find("check AWS_SECRET_ACCESS_KEY"), std::string::npos)
      << opened.error().message;
}

TEST(LocalBucket, IsNotMadeUnlessAsked) {
  auto opened = Bucket::open(scratch_dir(), false);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().kind, ErrorKind::kNotFound);
}

TEST(LocalBucket, RefusesAFile) {
  const std::string path = scratch_dir();
  std::ofstream(path) << "x";
  EXPECT_EQ(Bucket::open(path, true).error().kind, ErrorKind::kInvalidInput);
  fs::remove(path);
}

TEST(LocalBucket, NamesTheReasonWhenItCannotBeMade) {
  auto opened = Bucket::open("/proc/lorry", true);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().kind, ErrorKind::kUnavailable);
  EXPECT_NE(opened.error().message.find("/proc/lorry"), std::string::npos);
}

TEST(LocalBucket, SaysThatAFullDiskIsFull) {
  const std::string dir = scratch_dir();
  auto bucket = *Bucket::open(dir, true);
  fs::create_directories(dir + "/.lorry-tmp");
  // /dev/full answers every write with "no space left"; stand it in for the temporary file.
  char host[256] = {};
  ::gethostname(host, sizeof(host) - 1);
  bool met = false;
  for (int serial = 0; serial < 200 && !met; ++serial) {
    const auto name = dir + "/.lorry-tmp/" + host + "." + std::to_string(::getpid()) + "." +
                      std::to_string(serial);
    std::error_code error;
    fs::create_symlink("/dev/full", name, error);
  }
  auto wrote = bucket->write("x", "some bytes");
  if (wrote.ok()) GTEST_SKIP() << "host name with dots";
  EXPECT_NE(wrote.error().message.find("No space left"), std::string::npos)
      << wrote.error().message;
  EXPECT_FALSE(*bucket->exists("x"));
  fs::remove_all(dir);
}

TEST(LocalBucket, RemovesWhatAKilledWriterLeft) {
  const std::string dir = scratch_dir();
  ASSERT_TRUE(Bucket::open(dir, true).ok());
  const pid_t child = ::fork();
  if (child == 0) {
    auto writer = (*Bucket::open(dir, true))->create("x");
    (void)(*writer)->write("half");
    ::_exit(0);  // as a kill does: no destructor runs
  }
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(fs::is_empty(dir + "/.lorry-tmp"));
  ASSERT_TRUE(Bucket::open(dir, true).ok());
  EXPECT_FALSE(fs::exists(dir + "/.lorry-tmp"));
  fs::remove_all(dir);
}

TEST(Bucket, SaysWhichStoresAreNotSupported) {
  for (const char* uri : {"ftp://b", "S3:/b://"}) {
    auto opened = Bucket::open(uri, true);
    ASSERT_FALSE(opened.ok());
    EXPECT_EQ(opened.error().kind, ErrorKind::kUnsupported);
  }
}

TEST(Layout, PutsShardsUnderTheirStage) {
  EXPECT_EQ(shard_dir(raw_dir("org/name"), 7), "raw/org/name/7");
  EXPECT_EQ(fused_dir("m", "d"), "done/m/d/fused");
}

}  // namespace
}  // namespace lorry::store

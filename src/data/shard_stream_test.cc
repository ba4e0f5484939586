#include <arrow/array.h>
#include <arrow/json/from_string.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/shard.h"

namespace lorry::data {
namespace {

namespace fs = std::filesystem;

class ShardStreamTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("lorry-shard-stream-" + std::to_string(::getpid()));
    fs::remove_all(dir_);
    bucket_ = *store::Bucket::open(dir_.string(), true);
  }
  void TearDown() override { fs::remove_all(dir_); }

  /// Shard `dir` of rows {"text": "row 0"}, ... in files of about 10 kB.
  void write_shard(const std::string& dir, int rows, const Json& state = Json::object()) {
    ShardWriter::Options options;
    options.max_file_bytes = 10'000;
    options.rows_per_batch = 100;
    auto writer = *ShardWriter::create(bucket_, dir, schema_, options);
    Json json = Json::array();
    for (int i = 0; i < rows; ++i) json.push_back(Json{{"text", "row " + std::to_string(i)}});
    auto array = arrow::json::ArrayFromJSONString(arrow::struct_(schema_->fields()), json.dump());
    ASSERT_TRUE(writer->write(*arrow::RecordBatch::FromStructArray(*array).ValueOrDie()).ok());
    writer->set_state(state);
    ASSERT_TRUE(writer->finish().ok());
  }

  /// Rows, or the error's message.
  Json read(const std::string& dir) {
    auto stream = ShardStream::open(*bucket_, dir);
    if (!stream.ok()) return stream.error().message;
    Json rows = Json::array();
    while (true) {
      auto batch = (*stream)->next();
      if (!batch.ok()) return batch.error().message;
      if (!*batch) return rows;
      for (int64_t i = 0; i < (*batch)->num_rows(); ++i) {
        rows.push_back(row_to_json(**batch, i)["text"]);
      }
    }
  }

  std::shared_ptr<arrow::Schema> schema_ = arrow::schema({arrow::field("text", arrow::utf8())});
  fs::path dir_;
  std::shared_ptr<store::Bucket> bucket_;
};

TEST_F(ShardStreamTest, GivesEveryRowInOrderOverAllFiles) {
  write_shard("s/0", 3000);
  ASSERT_GT(shard_files(*bucket_, "s/0")->size(), 3u);
  const Json rows = read("s/0");
  ASSERT_EQ(rows.size(), 3000u);
  for (int i = 0; i < 3000; ++i) EXPECT_EQ(rows[size_t(i)], "row " + std::to_string(i));
}

TEST_F(ShardStreamTest, NamesTheFileOfWhichOneByteIsDamaged) {
  write_shard("raw/d/0", 3000);
  const auto files = *shard_files(*bucket_, "raw/d/0");
  std::string bytes = *bucket_->read(files[1].path);
  const size_t at = bytes.find("row 1");
  ASSERT_NE(at, std::string::npos);
  bytes[at] = 'R';  // still UTF-8: only the checksum tells
  ASSERT_TRUE(bucket_->write(files[1].path, bytes).ok());
  const std::string message = read("raw/d/0");
  EXPECT_NE(message.find(files[1].path + ": damaged: checksum"), std::string::npos) << message;
  EXPECT_NE(message.find("run import-dataset again"), std::string::npos) << message;
}

TEST_F(ShardStreamTest, NamesAFileThatIsCutShortOrMissing) {
  write_shard("standardized/d/0", 1000);
  const auto files = *shard_files(*bucket_, "standardized/d/0");
  const std::string bytes = *bucket_->read(files[1].path);
  ASSERT_TRUE(bucket_->write(files[1].path, bytes.substr(0, bytes.size() / 2)).ok());
  std::string message = read("standardized/d/0");
  EXPECT_NE(message.find(files[1].path), std::string::npos) << message;
  EXPECT_NE(message.find("run standardize again"), std::string::npos) << message;
  ASSERT_TRUE(bucket_->remove(files[1].path).ok());
  message = read("standardized/d/0");
  EXPECT_NE(message.find(files[1].path + ": the file is missing"), std::string::npos) << message;
}

TEST_F(ShardStreamTest, NeverCrashesOnDamage) {
  write_shard("s/0", 250);
  const std::string path = shard_files(*bucket_, "s/0")->front().path;
  const std::string bytes = *bucket_->read(path);
  for (size_t at = 0; at < bytes.size(); at += 7) {
    std::string damaged = bytes;
    damaged[at] = char(damaged[at] ^ 0x55);
    ASSERT_TRUE(bucket_->write(path, damaged).ok());
    EXPECT_TRUE(read("s/0").is_string()) << at;
  }
}

TEST_F(ShardStreamTest, AStateIsReadBackAndGoneWhileAnotherWriterIsAtWork) {
  write_shard("s/0", 10, Json{{"key", "k"}, {"rows", 10}});
  const auto state = *read_shard_state(*bucket_, "s/0");
  ASSERT_TRUE(state.has_value());
  EXPECT_EQ((*state)["key"], "k");
  auto writer = *ShardWriter::create(bucket_, "s/0", schema_);
  EXPECT_FALSE(read_shard_state(*bucket_, "s/0")->has_value());
}

TEST_F(ShardStreamTest, AShorterShardLeavesNoFilesOfTheLongerOneBefore) {
  write_shard("s/0", 3000);
  write_shard("s/0", 10);
  EXPECT_EQ(bucket_->list("s/0")->size(), 3u);
  EXPECT_EQ(read("s/0").size(), 10u);
}

}  // namespace
}  // namespace lorry::data

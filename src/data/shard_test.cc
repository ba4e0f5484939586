#include "data/shard.h"

#include <arrow/array.h>
#include <arrow/extension/json.h>
#include <arrow/json/from_string.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/token_shard.h"

namespace lorry::data {
namespace {

namespace fs = std::filesystem;

class ShardTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("lorry-shard-" + std::to_string(::getpid()));
    fs::remove_all(dir_);
    bucket_ = *store::Bucket::open(dir_.string(), true);
  }
  void TearDown() override { fs::remove_all(dir_); }

  std::shared_ptr<arrow::RecordBatch> numbers(int64_t begin, int64_t end) {
    Json rows = Json::array();
    for (int64_t i = begin; i < end; ++i) {
      Json row;
      row["id"] = i;
      row["flag"] = i % 3 == 0 ? Json(nullptr) : Json(i % 2 == 0);
      row["text"] = i % 5 == 0 ? Json(nullptr) : Json(std::string(size_t(i % 40), 'x'));
      Json parts = Json::array();
      for (int64_t k = 0; k < i % 4; ++k) parts.push_back(Json{{"role", "r" + std::to_string(k)}});
      row["parts"] = i % 7 == 0 ? Json(nullptr) : parts;
      rows.push_back(row);
    }
    auto array = arrow::json::ArrayFromJSONString(arrow::struct_(schema_->fields()), rows.dump());
    return arrow::RecordBatch::FromStructArray(*array).ValueOrDie();
  }

  std::string bytes_of(const std::string& dir) {
    std::string all;
    const auto found = *bucket_->list(dir);
    for (const auto& info : found) all += *bucket_->read(info.path) + "\n--\n";
    return all;
  }

  std::shared_ptr<arrow::Schema> schema_ = arrow::schema(
      {arrow::field("id", arrow::int64()), arrow::field("flag", arrow::boolean()),
       arrow::field("text", arrow::utf8()),
       arrow::field("parts", arrow::list(arrow::struct_({arrow::field("role", arrow::utf8())})))});
  fs::path dir_;
  std::shared_ptr<store::Bucket> bucket_;
};

TEST_F(ShardTest, ReadsBackEveryRow) {
  auto writer = *ShardWriter::create(bucket_, "s/0", schema_);
  ASSERT_TRUE(writer->write(*numbers(0, 2500)).ok());
  ASSERT_TRUE(writer->finish().ok());
  auto reader = ShardReader::open(*bucket_, "s/0");
  ASSERT_TRUE(reader.ok()) << reader.error().message;
  EXPECT_EQ((*reader)->rows(), 2500);
  EXPECT_EQ((*reader)->num_batches(), 3);
  const auto all = numbers(0, 2500);
  for (int64_t row = 0; row < 2500; ++row) {
    const auto [batch, at] = (*reader)->locate(row);
    ASSERT_EQ(row_to_json(*batch, at), row_to_json(*all, row)) << row;
  }
}

TEST_F(ShardTest, BytesDependOnTheRowsAlone) {
  auto whole = *ShardWriter::create(bucket_, "a", schema_);
  ASSERT_TRUE(whole->write(*numbers(0, 2345)).ok());
  ASSERT_TRUE(whole->finish().ok());
  auto cut = *ShardWriter::create(bucket_, "b", schema_);
  for (int64_t at = 0, step = 1; at < 2345; at += step, step = step * 3 % 271 + 1) {
    ASSERT_TRUE(cut->write(*numbers(at, std::min<int64_t>(2345, at + step))).ok());
  }
  ASSERT_TRUE(cut->finish().ok());
  EXPECT_EQ(bytes_of("a"), bytes_of("b"));
}

TEST_F(ShardTest, BeginsANewFilePastTheLimit) {
  ShardWriter::Options options;
  options.max_file_bytes = 20'000;
  options.rows_per_batch = 100;
  auto writer = *ShardWriter::create(bucket_, "s", schema_, options);
  ASSERT_TRUE(writer->write(*numbers(0, 1000)).ok());
  ASSERT_TRUE(writer->finish().ok());
  auto reader = *ShardReader::open(*bucket_, "s");
  EXPECT_EQ(reader->rows(), 1000);
  const auto found = *bucket_->list("s");
  EXPECT_GT(found.size(), 4u);
  for (const auto& info : found) EXPECT_LE(info.size, 24'000) << info.path;
}

TEST_F(ShardTest, LeavesNoStateWhenItWasNotFinished) {
  { auto writer = *ShardWriter::create(bucket_, "s", schema_); }
  auto reader = ShardReader::open(*bucket_, "s");
  ASSERT_FALSE(reader.ok());
  EXPECT_EQ(reader.error().kind, ErrorKind::kNotFound);
}

TEST_F(ShardTest, RemovingShardsSparesLowerOnesAndOtherNames) {
  for (const char* path : {"d/0/x", "d/1/x", "d/12/x", "d/2nd/x", "d/info.json"}) {
    ASSERT_TRUE(bucket_->write(path, "x").ok());
  }
  ASSERT_TRUE(remove_shards(*bucket_, "d", 1).ok());
  EXPECT_TRUE(*bucket_->exists("d/0/x"));
  EXPECT_FALSE(*bucket_->exists("d/1"));
  EXPECT_FALSE(*bucket_->exists("d/12"));
  EXPECT_TRUE(*bucket_->exists("d/2nd/x"));
  EXPECT_TRUE(*bucket_->exists("d/info.json"));
}

TEST_F(ShardTest, HoldsNoRowsAtAll) {
  auto writer = *ShardWriter::create(bucket_, "s", schema_);
  ASSERT_TRUE(writer->finish().ok());
  EXPECT_EQ((*ShardReader::open(*bucket_, "s"))->rows(), 0);
}

TEST_F(ShardTest, SaysThatADataFileIsCutShort) {
  auto writer = *ShardWriter::create(bucket_, "s", schema_);
  ASSERT_TRUE(writer->write(*numbers(0, 1500)).ok());
  ASSERT_TRUE(writer->finish().ok());
  const std::string bytes = *bucket_->read("s/data-00000.arrow");
  ASSERT_TRUE(bucket_->write("s/data-00000.arrow", bytes.substr(0, bytes.size() / 2)).ok());
  auto reader = ShardReader::open(*bucket_, "s");
  ASSERT_FALSE(reader.ok());
  EXPECT_EQ(reader.error().kind, ErrorKind::kCorruptData);
  EXPECT_NE(reader.error().message.find("s/data-00000.arrow"), std::string::npos);
}

TEST(Features, AreThoseOfDatasets) {
  const auto schema = arrow::schema(
      {arrow::field("a", arrow::large_utf8()),
       arrow::field("b", arrow::timestamp(arrow::TimeUnit::MICRO, "UTC")),
       arrow::field("c", arrow::list(arrow::struct_({arrow::field("x", arrow::float64())}))),
       arrow::field("d", arrow::dictionary(arrow::int8(), arrow::utf8())),
       arrow::field("e", arrow::extension::json()), arrow::field("f", arrow::null())});
  EXPECT_EQ(features_from_schema(*schema), Json::parse(R"({
    "a": {"dtype": "large_string", "_type": "Value"},
    "b": {"dtype": "timestamp[us, tz=UTC]", "_type": "Value"},
    "c": {"feature": {"x": {"dtype": "float64", "_type": "Value"}}, "_type": "List"},
    "d": {"dtype": "string", "_type": "Value"},
    "e": {"_type": "Json"},
    "f": {"dtype": "null", "_type": "Value"}})"));
}

TEST_F(ShardTest, TokenRowsAreViewsIntoTheShard) {
  const auto schema = token_schema(false);
  auto writer = *ShardWriter::create(bucket_, "t", schema);
  auto rows =
      arrow::json::ArrayFromJSONString(arrow::struct_(schema->fields()),
                                       R"([{"input_ids": [1, 2, 3], "assistant_masks": [0, 0, 1]},
          {"input_ids": [], "assistant_masks": []}, {"input_ids": [9], "assistant_masks": [1]}])");
  ASSERT_TRUE(writer->write(*arrow::RecordBatch::FromStructArray(*rows).ValueOrDie()).ok());
  ASSERT_TRUE(writer->finish().ok());
  auto reader = TokenShardReader::open(*bucket_, "t");
  ASSERT_TRUE(reader.ok()) << reader.error().message;
  EXPECT_EQ((*reader)->rows(), 3);
  const TokenRow row = (*reader)->row(0);
  EXPECT_EQ(std::vector<int32_t>(row.input_ids.begin(), row.input_ids.end()),
            (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(row.assistant_masks[2], 1);
  EXPECT_TRUE((*reader)->row(1).input_ids.empty());
  EXPECT_EQ((*reader)->row(2).input_ids[0], 9);
}

TEST_F(ShardTest, TokenReaderRefusesOtherShards) {
  auto writer = *ShardWriter::create(bucket_, "s", schema_);
  ASSERT_TRUE(writer->finish().ok());
  EXPECT_EQ(TokenShardReader::open(*bucket_, "s").error().kind, ErrorKind::kCorruptData);
}

}  // namespace
}  // namespace lorry::data

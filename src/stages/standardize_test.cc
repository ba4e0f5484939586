#include "stages/standardize.h"

#include <arrow/json/from_string.h>
#include <fmt/format.h>

#include "base/cancel.h"
#include "stages/stage_fixture.h"

namespace lorry::stages {
namespace {

constexpr char kRaw[] = "raw/talk";
constexpr char kOut[] = "standardized/talk";

class StandardizeStage : public StageTest {
 protected:
  void SetUp() override {
    StageTest::SetUp();
    options_.bucket = bucket_;
    options_.dataset = "talk";
    for (int i = 0; i < 300; ++i) {
      rows_.push_back(turns({{"human", "question " + std::to_string(i)},
                             {"gpt", "answer " + std::string(size_t(i % 7), 'x')}}));
    }
  }

  static Json turns(const Turns& list) {
    Json all = Json::array();
    for (const auto& [from, value] : list) all.push_back({{"from", from}, {"value", value}});
    return all;
  }

  /// raw/talk with these rows, `per_shard` a shard.
  void put_raw(size_t per_shard) {
    const auto turn =
        arrow::struct_({arrow::field("from", arrow::utf8()), arrow::field("value", arrow::utf8())});
    const auto schema = arrow::schema({arrow::field("conversations", arrow::list(turn))});
    ASSERT_TRUE(bucket_->remove(kRaw).ok());
    int64_t shards = 0;
    for (size_t begin = 0; begin < rows_.size(); begin += per_shard, ++shards) {
      const auto end = std::min(begin + per_shard, rows_.size());
      const Json part(
          std::vector<Json>(rows_.begin() + int64_t(begin), rows_.begin() + int64_t(end)));
      const auto column =
          arrow::json::ArrayFromJSONString(schema->field(0)->type(), dump_json(part)).ValueOrDie();
      auto writer = data::ShardWriter::create(
          bucket_, std::string(kRaw) + "/" + std::to_string(shards), schema);
      ASSERT_TRUE(writer.ok());
      ASSERT_TRUE(
          (*writer)->write(*arrow::RecordBatch::Make(schema, column->length(), {column})).ok());
      ASSERT_TRUE((*writer)->finish().ok());
    }
    ASSERT_TRUE(bucket_->write_info(kRaw, {{"count", shards - 1}, {"rows", rows_.size()}}).ok());
  }

  /// Standardizes all in one run and forgets it again.
  std::vector<std::pair<std::string, std::string>> undisturbed() {
    const auto done = standardize(options_);
    EXPECT_TRUE(done.ok()) << done.error().message;
    const auto all = contents(kOut);
    EXPECT_TRUE(bucket_->remove(kOut).ok());
    return all;
  }

  bool is_complete() { return *bucket_->exists(std::string(kOut) + "/info.json"); }

  std::vector<Json> rows_;
  StandardizeOptions options_;
};

TEST_F(StandardizeStage, CountsWhatBecameOfEachRow) {
  rows_[10] = Json::array();
  rows_[20] = rows_[120] = turns({{"human", "alone"}});
  rows_[130] = turns({{"alien", "x"}});
  put_raw(100);
  options_.skip_bad_rows = 1;
  const auto done = standardize(options_);
  ASSERT_TRUE(done.ok()) << done.error().message;
  EXPECT_EQ(done->rows_in, 300);
  EXPECT_EQ(done->rows, 296);
  const Json info = **bucket_->read_info(kOut);
  EXPECT_EQ(dump_json(info["ledger"]),
            R"({"read":300,"kept":296,"dropped":{"empty conversation":1,"malformed":1,)"
            R"("no assistant turn":2},"noted":{}})");
  EXPECT_EQ(info["shard_rows"], Json::parse("[98, 98, 100]"));
  const std::string ledger = *bucket_->read(std::string(kOut) + "/ledger.jsonl");
  EXPECT_NE(ledger.find(R"("reason":"malformed","dropped":true,"place":"raw/talk/1","row":30)"),
            std::string::npos)
      << ledger;
  EXPECT_TRUE(standardize(options_)->up_to_date);
}

TEST_F(StandardizeStage, AColumnThatLateRowsHaveIsInAllShards) {
  rows_[299] = turns({{"human", "add"}, {"function_call", R"({"name": "f", "arguments": {}})"}});
  put_raw(60);
  const auto whole = undisturbed();
  ASSERT_FALSE(whole.empty());
  options_.world_size = 2;
  options_.wait = false;  // one after the other
  for (const int rank : {0, 1}) {
    options_.rank = rank;
    const auto done = standardize(options_);
    ASSERT_TRUE(done.ok()) << done.error().message;
    EXPECT_EQ(done->complete, rank == 1);
  }
  EXPECT_EQ(contents(kOut), whole);
  const auto shard = *data::ShardReader::open(*bucket_, std::string(kOut) + "/0");
  EXPECT_NE(shard->schema()->ToString().find("tool_calls"), std::string::npos);
}

TEST_F(StandardizeStage, AStoppedRunGoesOnWithTheBytesOfAnUndisturbedOne) {
  put_raw(50);
  const auto whole = undisturbed();
  options_.progress = [](int64_t rows, int64_t) {
    if (rows >= 200) request_cancel(15);
  };
  EXPECT_FALSE(standardize(options_).ok());
  reset_cancel();
  EXPECT_FALSE(is_complete());
  ASSERT_TRUE(bucket_->write(std::string(kOut) + "/2/data-00000.arrow", "damaged").ok());
  ASSERT_TRUE(bucket_->remove(std::string(kOut) + "/2/state.json").ok());
  int64_t first = -1;
  options_.progress = [&](int64_t rows, int64_t) {
    if (first < 0) first = rows;
  };
  ASSERT_TRUE(standardize(options_).ok());
  EXPECT_GT(first, 100) << "whole shards are kept";
  EXPECT_EQ(contents(kOut), whole);
}

TEST_F(StandardizeStage, ALostNodesPartIsTakenUpByARunWithoutRank) {
  put_raw(50);
  const auto whole = undisturbed();
  options_.world_size = 3;
  options_.wait = false;  // one after the other
  options_.rank = 1;
  const auto part = standardize(options_);
  ASSERT_TRUE(part.ok());
  EXPECT_FALSE(part->complete);
  EXPECT_EQ(part->missing, 4);
  options_.world_size = 1;
  options_.wait = false;  // one after the other
  options_.rank = 0;
  EXPECT_TRUE(standardize(options_)->complete);
  EXPECT_EQ(contents(kOut), whole);
}

TEST_F(StandardizeStage, ShardsBeyondTheLastAndAnInfoOfOtherInputsGo) {
  put_raw(50);
  ASSERT_TRUE(standardize(options_).ok());
  rows_.resize(90);
  put_raw(50);
  options_.world_size = 2;
  options_.wait = false;  // one after the other
  ASSERT_FALSE(standardize(options_)->complete);
  EXPECT_FALSE(is_complete()) << "it told of other rows";
  options_.rank = 1;
  ASSERT_TRUE(standardize(options_)->complete);
  EXPECT_FALSE(*bucket_->exists(std::string(kOut) + "/2"));
}

TEST_F(StandardizeStage, TooManyDroppedRowsFailBeforeItIsComplete) {
  for (int i = 0; i < 10; ++i) rows_[size_t(i * 30)] = Json::array();
  put_raw(100);
  options_.max_dropped = *DropLimit::parse("3%");
  const auto failed = standardize(options_);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().kind, ErrorKind::kInvalidInput);
  EXPECT_NE(failed.error().message.find("10 of 300 rows left out, more than --max-dropped 3%: 10 "
                                        "empty conversation (raw/talk/0 row 0, "),
            std::string::npos)
      << failed.error().message;
  EXPECT_FALSE(is_complete());
  options_.max_dropped = *DropLimit::parse("10");
  EXPECT_TRUE(standardize(options_).ok());
  options_.max_dropped = *DropLimit::parse("9");
  EXPECT_FALSE(standardize(options_).ok()) << "it holds for what is there already";
}

TEST_F(StandardizeStage, AMalformedRowIsNamed) {
  rows_[130] = turns({{"alien", "x"}});
  put_raw(100);
  const auto failed = standardize(options_);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().message.find("raw/talk/1 row 30: "), 0u) << failed.error().message;
  EXPECT_NE(failed.error().message.find("--skip-bad-rows"), std::string::npos);
}

TEST_F(StandardizeStage, ADamagedShardIsNamed) {
  put_raw(100);
  const std::string path = std::string(kRaw) + "/1/data-00000.arrow";
  std::string bytes = *bucket_->read(path);
  for (size_t i = bytes.size() / 2; i < bytes.size() / 2 + 64; ++i) bytes[i] = char(0xFF);
  ASSERT_TRUE(bucket_->write(path, bytes).ok());
  const auto failed = standardize(options_);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().kind, ErrorKind::kCorruptData);
  EXPECT_NE(failed.error().message.find(path), std::string::npos) << failed.error().message;
}

TEST_F(StandardizeStage, RanksAndWorldSizeMustAgree) {
  put_raw(100);
  options_.world_size = 2;
  options_.wait = false;  // one after the other
  options_.rank = 2;
  EXPECT_EQ(standardize(options_).error().kind, ErrorKind::kUsage);
}

TEST_F(StandardizeStage, TheBytesDoNotDependOnThreadsOrMemory) {
  put_raw(150);
  const auto whole = undisturbed();
  options_.threads = 3;
  options_.memory = 1 << 20;
  EXPECT_EQ(undisturbed(), whole);
}

class States : public StageTest {};

TEST_F(States, OfManyShardsComeInOrder) {
  ASSERT_TRUE(bucket_->write("d/0/state.json", R"({"_lorry": {"key": "a"}})").ok());
  ASSERT_TRUE(bucket_->write("d/700/state.json", R"({"_lorry": {"key": "b"}})").ok());
  ASSERT_TRUE(bucket_->write("d/701/state.json", R"({"_fingerprint": "another program"})").ok());
  ASSERT_TRUE(bucket_->write("d/702/state.json", "damaged").ok());
  int64_t next = 0;
  std::string keys;
  const auto read = read_states(*bucket_, "d", 1000, [&](int64_t shard, std::optional<Json> state) {
    EXPECT_EQ(shard, next++);
    if (state) keys += fmt::format("{}{} ", (*state)["key"].get<std::string>(), shard);
    return Result<>();
  });
  EXPECT_TRUE(read.ok());
  EXPECT_EQ(next, 1000);
  EXPECT_EQ(keys, "a0 b700 ");
}

}  // namespace
}  // namespace lorry::stages

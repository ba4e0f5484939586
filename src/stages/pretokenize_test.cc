#include "stages/pretokenize.h"

#include <arrow/json/from_string.h>

#include "base/cancel.h"
#include "data/token_shard.h"
#include "stages/messages.h"
#include "stages/stage_fixture.h"

namespace lorry::stages {
namespace {

constexpr char kReady[] = "model-ready/tiny/talk";

class PretokenizeStage : public StageTest {
 protected:
  void SetUp() override {
    StageTest::SetUp();
    put_model("tiny");
    for (int i = 0; i < 300; ++i)
      rows_.push_back({{"user", "question " + std::to_string(i)},
                       {"assistant", "answer " + std::string(i % 7, 'x')}});
    options_ = options_for("talk");
  }

  PretokenizeOptions options_for(const std::string& dataset) const {
    PretokenizeOptions options;
    options.bucket = bucket_;
    options.model = "tiny";
    options.dataset = dataset;
    return options;
  }

  std::vector<Turns> rows_;
  PretokenizeOptions options_;
};

TEST_F(PretokenizeStage, WritesIdsAndMasksInOrder) {
  put_dataset("talk", rows_, 200);
  const auto done = pretokenize(options_);
  ASSERT_TRUE(done.ok()) << done.error().message;
  EXPECT_EQ(done->counts.rows, 300);
  EXPECT_EQ(done->shards, 2);
  const auto chat = *load_chat(*bucket_, "tiny");
  const auto reader = *data::TokenShardReader::open(*bucket_, std::string(kReady) + "/1");
  ASSERT_EQ(reader->rows(), 100);
  const auto row = reader->row(5);
  const std::vector<int32_t> ids(row.input_ids.begin(), row.input_ids.end());
  EXPECT_EQ(chat->tokenizer()->decode(ids, false),
            "<|start|>user\nquestion 205<|end|>\n<|start|>assistant\nanswer xx<|end|>\n");
  std::vector<int32_t> learnt;
  for (size_t i = 0; i < ids.size(); ++i)
    if (row.assistant_masks[i] == 1) learnt.push_back(ids[i]);
  EXPECT_EQ(chat->tokenizer()->decode(learnt, false), "answer xx<|end|>");
}

TEST_F(PretokenizeStage, InfoCountsAndASecondRunDoesNothing) {
  put_dataset("talk", rows_, 200);
  rows_.clear();
  const auto first = *pretokenize(options_);
  const auto info = **bucket_->read_info(kReady);
  EXPECT_EQ(info["count"], 1);
  EXPECT_EQ(info["rows"], 300);
  EXPECT_EQ(info["tokens"], first.counts.tokens);
  EXPECT_GT(first.counts.target_tokens, 0);
  EXPECT_FALSE(*bucket_->exists(std::string(kReady) + "/progress.json"));
  const auto again = *pretokenize(options_);
  EXPECT_TRUE(again.up_to_date);
  EXPECT_EQ(again.counts.tokens, first.counts.tokens);
  EXPECT_EQ(again.counts.longest, first.counts.longest);
}

TEST_F(PretokenizeStage, AnInterruptedRunGoesOnAndItsBytesAreThoseOfAnUndisturbedOne) {
  put_dataset("talk", rows_, 100);
  ASSERT_TRUE(pretokenize(options_).ok());
  const auto undisturbed = contents(kReady);
  options_.fresh = true;
  options_.progress = [](int64_t rows, int64_t) {
    if (rows >= 200) request_cancel(15);
  };
  const auto stopped = pretokenize(options_);
  reset_cancel();
  ASSERT_FALSE(stopped.ok());
  EXPECT_EQ(stopped.error().kind, ErrorKind::kCancelled);
  EXPECT_FALSE(*bucket_->exists(std::string(kReady) + "/info.json"));
  EXPECT_TRUE(*bucket_->exists(std::string(kReady) + "/0/state.json"));
  options_.fresh = false;
  int64_t began_at = -1;
  options_.progress = [&](int64_t rows, int64_t) {
    if (began_at < 0) began_at = rows;
  };
  ASSERT_TRUE(pretokenize(options_).ok());
  EXPECT_GE(began_at, 100) << "whole shards are kept";
  EXPECT_EQ(contents(kReady), undisturbed);
}

TEST_F(PretokenizeStage, AChangedInputMakesItRunAgain) {
  put_dataset("talk", rows_, 200);
  ASSERT_TRUE(pretokenize(options_).ok());
  options_.with_text = true;
  EXPECT_FALSE(pretokenize(options_)->up_to_date);
  rows_.pop_back();
  put_dataset("talk", rows_, 299);
  const auto done = *pretokenize(options_);
  EXPECT_FALSE(done.up_to_date);
  EXPECT_EQ(done.counts.rows, 299);
  EXPECT_FALSE(*bucket_->exists(std::string(kReady) + "/1")) << "a shard of the run before";
}

TEST_F(PretokenizeStage, WhatIsTrainedOnIsAnInput) {
  put_dataset("talk", rows_, 300);
  const auto turns = *pretokenize(options_);
  options_.train_on = "all";
  const auto all = *pretokenize(options_);
  EXPECT_FALSE(all.up_to_date);
  EXPECT_LT(turns.counts.target_tokens, turns.counts.tokens);
  EXPECT_EQ(all.counts.target_tokens, all.counts.tokens);
  EXPECT_TRUE(pretokenize(options_)->up_to_date);
}

TEST_F(PretokenizeStage, TheBytesDoNotDependOnTheThreads) {
  put_dataset("talk", rows_, 300);
  options_.threads = 1;
  ASSERT_TRUE(pretokenize(options_).ok());
  const auto one = contents(kReady);
  options_.threads = 5;
  options_.fresh = true;
  ASSERT_TRUE(pretokenize(options_).ok());
  EXPECT_EQ(contents(kReady), one);
}

TEST_F(PretokenizeStage, ARefusedRowIsNamedOrLeftOutWhenAllowed) {
  rows_[150] = {{"banned", "x"}};
  put_dataset("talk", rows_, 100);
  const auto failed = pretokenize(options_);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().message.find("standardized/talk/1 row 50: "), 0u)
      << failed.error().message;
  EXPECT_NE(failed.error().message.find("banned role"), std::string::npos);
  options_.skip_bad_rows = 1;
  const auto done = pretokenize(options_);
  ASSERT_TRUE(done.ok()) << done.error().message;
  EXPECT_EQ(done->counts.rows, 299);
  EXPECT_EQ(done->dropped, 1);
  const auto info = **bucket_->read_info(kReady);
  EXPECT_EQ(info["ledger"]["dropped"]["malformed"], 1);
  const std::string ledger = *bucket_->read(std::string(kReady) + "/ledger.jsonl");
  EXPECT_NE(ledger.find(R"("place":"standardized/talk/1","row":50)"), std::string::npos) << ledger;
}

TEST_F(PretokenizeStage, ARowWithATokenBeyondTheEmbeddingIsRefusedByName) {
  const std::string model = "models/tiny";
  const Json config = {{"eos_token", "<new>"}, {"chat_template", kTemplate}};
  ASSERT_TRUE(bucket_->write(model + "/tokenizer_config.json", dump_json(config)).ok());
  ASSERT_TRUE(bucket_->write(model + "/config.json", R"({"vocab_size": 258})").ok());
  put_dataset("plain", rows_, 100);
  ASSERT_TRUE(pretokenize(options_for("plain")).ok()) << "no row holds it";
  rows_[150][0].second = "a <new> word";
  put_dataset("talk", rows_, 100);
  const auto failed = pretokenize(options_);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().message.find("standardized/talk/1 row 50: token 258 (\"<new>\")"), 0u)
      << failed.error().message;
  options_.skip_bad_rows = 1;
  EXPECT_EQ(pretokenize(options_)->dropped, 1);
  ASSERT_TRUE(bucket_->write(model + "/config.json", R"({"vocab_size": 259})").ok());
  EXPECT_EQ(pretokenize(options_)->dropped, 0) << "the model was resized";
}

TEST_F(PretokenizeStage, ARowWithNothingToLearnIsKeptAndCounted) {
  rows_[3] = {{"user", "alone"}};
  put_dataset("talk", rows_, 300);
  const auto done = pretokenize(options_);
  ASSERT_TRUE(done.ok()) << done.error().message;
  EXPECT_EQ(done->counts.rows, 300);
  EXPECT_EQ(done->counts.rows_without_target, 1);
  const Json noted = (**bucket_->read_info(kReady))["ledger"]["noted"];
  EXPECT_EQ(noted["nothing to train on: no message of the assistant"], 1);
}

/// Rows of about 16 tokens but row 7, which is far longer and says "end" at the end.
class LongRow : public PretokenizeStage {
 protected:
  void SetUp() override {
    PretokenizeStage::SetUp();
    std::string words;
    for (int i = 0; i < 40; ++i) words += "word " + std::to_string(i) + " ";
    rows_[7] = {{"user", words}, {"assistant", words + "end"}};
    put_dataset("talk", rows_, 150);
    whole_ = *pretokenize(options_);
    options_.length.max_length = kMaxLength;
  }

  PretokenizeReport with(Excess excess) {
    options_.length.excess = excess;
    auto report = pretokenize(options_);
    EXPECT_TRUE(report.ok()) << report.error().message;
    ledger_ = (**bucket_->read_info(kReady))["ledger"];
    return *std::move(report);
  }
  data::TokenRow row(int64_t i) {
    reader_ = *data::TokenShardReader::open(*bucket_, std::string(kReady) + "/0");
    return reader_->row(i);
  }

  static constexpr int64_t kMaxLength = 100;
  PretokenizeReport whole_;
  Json ledger_;
  std::shared_ptr<data::TokenShardReader> reader_;
};

TEST_F(LongRow, IsCutAndTheLedgerSaysSo) {
  const auto done = with(Excess::kTruncate);
  EXPECT_FALSE(done.up_to_date) << "the limit is an input";
  EXPECT_EQ(done.counts.rows, 300);
  EXPECT_EQ(done.counts.longest, kMaxLength);
  EXPECT_EQ(done.counts.excess.rows, 1);
  EXPECT_EQ(done.counts.excess.tokens_left_out, whole_.counts.longest - kMaxLength);
  EXPECT_EQ(done.counts.tokens + done.counts.excess.tokens_left_out, whole_.counts.tokens);
  EXPECT_EQ(ledger_["noted"]["cut at --max-length"], 1);
  EXPECT_EQ(ledger_["noted"]["nothing to train on: every token to train on is beyond --max-length"],
            1);
  EXPECT_EQ(row(7).input_ids.size(), size_t(kMaxLength));
  EXPECT_TRUE(pretokenize(options_)->up_to_date);
  EXPECT_EQ(pretokenize(options_)->counts.excess.rows, 1) << "what was counted is read back";
}

TEST_F(LongRow, IsLeftOutAndCountsAsLeftOut) {
  const auto done = with(Excess::kDrop);
  EXPECT_EQ(done.counts.rows, 299);
  EXPECT_EQ(done.dropped, 1);
  EXPECT_EQ(ledger_["dropped"]["longer than --max-length"], 1);
  EXPECT_EQ(ledger_["read"], 300);
  const std::string lines = *bucket_->read(std::string(kReady) + "/ledger.jsonl");
  EXPECT_NE(lines.find(R"("place":"standardized/talk/0","row":7,"detail":")" +
                       std::to_string(whole_.counts.longest) + " tokens"),
            std::string::npos)
      << lines;
  options_.max_dropped = *DropLimit::parse("0");
  EXPECT_FALSE(pretokenize(options_).ok());
}

TEST_F(LongRow, IsSplitIntoPiecesInOrder) {
  const auto first = row(7);
  const std::vector<int32_t> ids(first.input_ids.begin(), first.input_ids.end());
  const auto done = with(Excess::kSplit);
  const auto& excess = done.counts.excess;
  EXPECT_EQ(ledger_["noted"]["split at --max-length"], 1);
  EXPECT_EQ(ledger_["kept"], 300) << "rows that were read";
  EXPECT_EQ(done.counts.rows, 299 + excess.pieces);
  EXPECT_EQ(excess.pieces + excess.pieces_left_out, (int64_t(ids.size()) + 99) / 100);
  EXPECT_GT(excess.pieces_left_out, 0) << "those of the question";
  std::vector<int32_t> joined;
  for (int64_t i = 0; i < excess.pieces; ++i) {
    const auto piece = row(7 + i);
    joined.insert(joined.end(), piece.input_ids.begin(), piece.input_ids.end());
  }
  EXPECT_EQ(joined,
            std::vector<int32_t>(ids.begin() + excess.pieces_left_out * kMaxLength, ids.end()));
}

TEST_F(LongRow, TheBytesAreTheSameWhoeverDoesTheWork) {
  options_.with_text = true;
  with(Excess::kSplit);
  const auto alone = contents(kReady);
  ASSERT_TRUE(bucket_->remove(kReady).ok());
  options_.world_size = 2;
  options_.wait = false;  // one after the other
  for (const int rank : {1, 0}) {
    options_.rank = rank;
    ASSERT_TRUE(pretokenize(options_).ok());
  }
  EXPECT_EQ(contents(kReady), alone);
}

TEST_F(LongRow, ALimitThatLeavesNothingSaysSo) {
  options_.length.max_length = 2;
  options_.length.excess = Excess::kDrop;
  const auto failed = pretokenize(options_);
  ASSERT_FALSE(failed.ok());
  EXPECT_NE(failed.error().message.find("300 rows are longer than --max-length 2"),
            std::string::npos)
      << failed.error().message;
}

TEST_F(PretokenizeStage, PartsOfSeveralNodesMakeTheWhole) {
  put_dataset("talk", rows_, 70);  // 5 shards
  ASSERT_TRUE(pretokenize(options_).ok());
  const auto alone = contents(kReady);
  ASSERT_TRUE(bucket_->remove(kReady).ok());
  options_.world_size = 3;
  options_.wait = false;  // one after the other
  for (const int rank : {2, 0, 1}) {
    options_.rank = rank;
    const auto part = pretokenize(options_);
    ASSERT_TRUE(part.ok()) << part.error().message;
    EXPECT_EQ(part->complete, rank == 1);
    EXPECT_EQ(part->missing, rank == 2 ? 4 : rank == 0 ? 2 : 0);
    EXPECT_EQ(*bucket_->exists(std::string(kReady) + "/info.json"), rank == 1);
  }
  EXPECT_EQ(contents(kReady), alone);
}

TEST_F(PretokenizeStage, TheLimitOfBadRowsHoldsAcrossNodes) {
  rows_[3] = rows_[250] = {{"banned", "x"}};
  put_dataset("talk", rows_, 100);
  options_.world_size = 2;
  options_.wait = false;  // one after the other
  options_.skip_bad_rows = 1;
  ASSERT_TRUE(pretokenize(options_).ok() == false) << "both lie in shards of rank 0";
  options_.world_size = 3;
  options_.wait = false;  // one after the other
  EXPECT_TRUE(pretokenize(options_).ok());
  options_.rank = 1;
  EXPECT_TRUE(pretokenize(options_).ok());
  options_.rank = 2;
  const auto last = pretokenize(options_);
  ASSERT_FALSE(last.ok());
  EXPECT_FALSE(*bucket_->exists(std::string(kReady) + "/info.json"));
  options_.skip_bad_rows = 2;
  const auto done = pretokenize(options_);
  ASSERT_TRUE(done.ok()) << done.error().message;
  EXPECT_TRUE(done->complete);
  options_.skip_bad_rows = 1;
  EXPECT_FALSE(pretokenize(options_).ok()) << "a limit holds for what is there already";
}

TEST_F(PretokenizeStage, MissingInputsSayWhatToRun) {
  EXPECT_NE(pretokenize(options_).error().message.find("run lorry import-dataset"),
            std::string::npos);
  options_.model = "none";
  EXPECT_NE(pretokenize(options_).error().message.find("run lorry import-model"),
            std::string::npos);
}

TEST(ExampleFromRow, ParsesStoredJsonAndLeavesOutWhatIsAbsent) {
  const Json row = *parse_json(R"({"conversations": [
      {"role": "user", "content": "hi", "tool_calls": null, "name": null},
      {"role": "assistant", "content": null, "tool_calls": "[{\"type\": \"function\"}]"},
      {"role": "tool", "content": "4", "tool_call_id": "c1"}],
      "tools": "[{\"name\": \"f\"}]", "other": 1})",
                               "row");
  const auto example = example_from_row(row);
  ASSERT_TRUE(example.ok()) << example.error().message;
  EXPECT_EQ(dump_json(example->messages),
            R"([{"role":"user","content":"hi"},)"
            R"({"role":"assistant","content":null,"tool_calls":[{"type":"function"}]},)"
            R"({"role":"tool","content":"4","tool_call_id":"c1"}])");
  EXPECT_EQ(dump_json(example->tools), R"([{"name":"f"}])");
}

TEST(ExampleReader, GivesWhatTheRowGives) {
  const auto turn = arrow::struct_(
      {arrow::field("role", arrow::utf8()), arrow::field("content", arrow::utf8()),
       arrow::field("tool_calls", arrow::utf8()), arrow::field("name", arrow::utf8())});
  const auto type =
      arrow::struct_({arrow::field("conversations", arrow::list(turn)),
                      arrow::field("tools", arrow::utf8()), arrow::field("id", arrow::int64())});
  const auto rows = arrow::json::ArrayFromJSONString(type, R"([
      {"conversations": [["user", "a", null, null], ["assistant", "b", null, "Eve"]]},
      {"conversations": [["user", "a", null, null], ["assistant", null, "[{\"x\": 1}]", null]]},
      {"conversations": [["user", "a", null, null]], "tools": "[{\"name\": \"f\"}]"},
      {"conversations": [["user", "a", null, null]], "tools": "no JSON"},
      {"conversations": [["user", null, null, null]]}, {"conversations": [[null, "a", null, null]]},
      {"conversations": [null]}, {"conversations": []}, {"conversations": null, "id": 1}])")
                        .ValueOrDie();
  const auto batch = arrow::RecordBatch::FromStructArray(rows).ValueOrDie();
  for (int64_t from : {0, 2}) {
    const auto slice = batch->Slice(from);
    const ExampleReader reader(*slice);
    for (int64_t row = 0; row < slice->num_rows(); ++row) {
      const auto got = reader.at(row);
      const auto want = example_from_row(data::row_to_json(*slice, row));
      ASSERT_EQ(got.ok(), want.ok()) << row;
      if (!want.ok()) {
        EXPECT_EQ(got.error().message, want.error().message);
        continue;
      }
      EXPECT_EQ(dump_json(got->messages), dump_json(want->messages)) << row;
      EXPECT_EQ(dump_json(got->tools), dump_json(want->tools)) << row;
    }
  }
}

TEST(ExampleFromRow, AWeightOfZeroMakesAMessageContext) {
  const Json turns =
      Json::array({{{"role", "user"}, {"content", "q"}, {"weight", nullptr}},
                   {{"role", "assistant"}, {"content", "bad"}, {"weight", "0"}},
                   {{"role", "assistant"}, {"content", "good"}, {"weight", nullptr}}});
  const auto example = *example_from_row({{"conversations", turns}});
  EXPECT_EQ(example.context, std::vector<size_t>{1});
  for (const Json& message : example.messages) EXPECT_FALSE(message.contains("weight"));
}

TEST(ExampleFromRow, PlainTextIsNoConversation) {
  const auto example = example_from_row(*parse_json(R"({"text": "abc"})", "row"));
  ASSERT_TRUE(example.ok());
  EXPECT_TRUE(example->is_text);
  EXPECT_FALSE(example_from_row(*parse_json(R"({"x": 1})", "row")).ok());
}

}  // namespace
}  // namespace lorry::stages

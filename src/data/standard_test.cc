// standardize_batch gives what standardize_row gives, whatever the columns.
#include "data/standard_batch.h"

#include <arrow/api.h>
#include <arrow/extension/json.h>
#include <arrow/json/from_string.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "data/reader.h"
#include "data/shard.h"
#include "data/source.h"
#include "data/standard_rows.h"

namespace lorry::data {
namespace {

using Schema = std::shared_ptr<arrow::Schema>;

Schema turns_schema(arrow::FieldVector turn, const char* column = "messages") {
  return arrow::schema({arrow::field(column, arrow::list(arrow::struct_(std::move(turn))))});
}

arrow::FieldVector strings(std::initializer_list<const char*> names) {
  arrow::FieldVector fields;
  for (const char* name : names) fields.push_back(arrow::field(name, arrow::utf8()));
  return fields;
}

std::shared_ptr<arrow::RecordBatch> batch_of(const Schema& schema, const Json& rows) {
  const auto array =
      arrow::json::ArrayFromJSONString(arrow::struct_(schema->fields()), dump_json(rows))
          .ValueOrDie();
  return arrow::RecordBatch::FromStructArray(array).ValueOrDie();
}

RowRules rules_for(const arrow::RecordBatch& batch, const NamedValues& columns = {},
                   const NamedValues& set = {}) {
  std::vector<Json> sample;
  for (int64_t i = 0; i < batch.num_rows(); ++i) sample.push_back(row_to_json(batch, i));
  auto rules = find_rules(*batch.schema(), sample, {.columns = columns, .placeholders = set});
  EXPECT_TRUE(rules.ok()) << rules.error().message;
  return *rules;
}

StandardBatch standardized(const RowRules& rules, const arrow::RecordBatch& batch, bool fast) {
  const auto run = [&](const OptionalColumns& columns) {
    auto done = fast ? standardize_batch(rules, columns, batch)
                     : standardize_batch_slowly(rules, columns, batch);
    EXPECT_TRUE(done.ok()) << done.error().message;
    return *std::move(done);
  };
  auto done = run({});
  if (done.needed != OptionalColumns()) {
    EXPECT_EQ(done.rows, nullptr);
    done = run(done.needed);
  }
  EXPECT_TRUE(done.rows->ValidateFull().ok());
  return done;
}

void expect_same(const RowRules& rules, const arrow::RecordBatch& batch) {
  const auto fast = standardized(rules, batch, true);
  const auto slow = standardized(rules, batch, false);
  EXPECT_TRUE(fast.rows->Equals(*slow.rows, true)) << fast.rows->ToString() << "\nand\n"
                                                   << slow.rows->ToString();
  EXPECT_EQ(fast.needed, slow.needed);
  EXPECT_EQ(fast.placeholders, slow.placeholders);
  EXPECT_EQ(fast.filled, slow.filled);
  ASSERT_EQ(fast.noted.size(), slow.noted.size());
  for (size_t i = 0; i < fast.noted.size(); ++i) {
    EXPECT_EQ(fast.noted[i].row, slow.noted[i].row);
    EXPECT_EQ(fast.noted[i].reason, slow.noted[i].reason);
  }
  ASSERT_EQ(fast.left_out.size(), slow.left_out.size());
  for (size_t i = 0; i < fast.left_out.size(); ++i) {
    EXPECT_EQ(fast.left_out[i].row, slow.left_out[i].row);
    EXPECT_EQ(fast.left_out[i].reason, slow.left_out[i].reason);
    EXPECT_EQ(fast.left_out[i].malformed, slow.left_out[i].malformed);
  }
}

/// Rows that need standardize_row.
int64_t slow_rows(const RowRules& rules, const arrow::RecordBatch& batch) {
  auto rows = FastRows::of(rules, batch);
  if (!rows) return batch.num_rows();
  StandardBuilder builder(rules.format, {});
  OptionalColumns needed;
  int64_t slow = 0;
  for (int64_t i = 0; i < batch.num_rows(); ++i) {
    slow += !rows->append(i, builder, needed).ValueOrDie();
  }
  return slow;
}

TEST(StandardizeBatch, MapsRolesOfShareGptWithoutAJsonValue) {
  const auto batch =
      batch_of(turns_schema(strings({"from", "value"}), "conversations"), *parse_json(R"([
      {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
      {"conversations": [{"from": "System", "value": null}, {"from": "Bot", "value": "c"}]}])",
                                                                                      ""));
  const auto rules = rules_for(*batch);
  EXPECT_EQ(slow_rows(rules, *batch), 0);
  const auto done = standardized(rules, *batch, true);
  EXPECT_EQ(dump_json(row_to_json(*done.rows, 0)),
            R"({"conversations":[{"role":"user","content":"a"},)"
            R"({"role":"assistant","content":"b"}]})");
  EXPECT_EQ(dump_json(row_to_json(*done.rows, 1)),
            R"({"conversations":[{"role":"system","content":""},)"
            R"({"role":"assistant","content":"c"}]})");
}

TEST(StandardizeBatch, UnusualRowsTakeTheSlowWayAndOthersDoNot) {
  const auto batch = batch_of(turns_schema(strings({"role", "content"})), *parse_json(R"([
      {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
      {"messages": null}, {"messages": []}, {"messages": [null]},
      {"messages": [{"role": "user", "content": "a"}]},
      {"messages": [{"role": "alien", "content": "a"}]},
      {"messages": [{"role": null, "content": "a"}]},
      {"messages": [{"role": "user", "content": "{{name}} and {{ other }}"},
                    {"role": "assistant", "content": "b"}]},
      {"messages": [{"role": "function_call", "content": "{\"name\": \"f\"}"}]},
      {"messages": [{"role": "assistant", "content": "last"}]}])",
                                                                                      ""));
  const auto rules = rules_for(*batch, {}, {{"name", "Ada"}});
  EXPECT_EQ(slow_rows(rules, *batch), 8);
  expect_same(rules, *batch);
  const auto done = standardized(rules, *batch, true);
  EXPECT_EQ(done.rows->num_rows(), 4);
  EXPECT_TRUE(done.needed.tool_calls);
  EXPECT_EQ(done.filled, std::set<std::string>{"name"});
  EXPECT_EQ(done.placeholders, std::set<std::string>{"other"});
  ASSERT_EQ(done.left_out.size(), 6u);
  EXPECT_EQ(done.left_out[0].reason, "empty conversation");
  EXPECT_EQ(done.left_out[4].reason, kMalformed);
  EXPECT_EQ(done.left_out[4].row, 5);
  EXPECT_NE(done.left_out[4].malformed.find("unknown role \"alien\""), std::string::npos);
}

TEST(StandardizeBatch, RowsOfAMissingColumnAreNotGiven) {
  const auto batch = batch_of(turns_schema(strings({"role", "content", "name"})), *parse_json(R"([
      {"messages": [{"role": "assistant", "content": "b", "name": "Eve"}]}])",
                                                                                              ""));
  const auto rules = rules_for(*batch);
  const auto narrow = standardize_batch(rules, {}, *batch);
  ASSERT_TRUE(narrow.ok());
  EXPECT_EQ(narrow->rows, nullptr);
  EXPECT_TRUE(narrow->needed.name);
  const auto wide = standardize_batch(rules, {.name = true, .tools = true}, *batch);
  EXPECT_EQ(dump_json(row_to_json(*wide->rows, 0)),
            R"({"conversations":[{"role":"assistant","content":"b","name":"Eve"}],"tools":null})");
}

TEST(StandardizeBatch, BracesAreFoundWhereverTheyLie) {
  const auto schema = arrow::schema(strings({"text"}));
  for (size_t length = 2; length < 200; ++length) {
    for (const size_t at : {size_t(0), length / 2 - 1, length - 2}) {
      std::string text(length, 'x');
      text[at] = text[at + 1] = '{';
      const auto batch = batch_of(schema, Json::array({{{"text", text}}}));
      ASSERT_EQ(slow_rows(rules_for(*batch), *batch), 1) << length << " " << at;
    }
    const auto batch = batch_of(schema, Json::array({{{"text", std::string(length, 'x') + "{"}}}));
    ASSERT_EQ(slow_rows(rules_for(*batch), *batch), 0) << length;
  }
}

/// Values that make rows of any kind, most of them usual.
class RandomRows {
 public:
  explicit RandomRows(uint64_t seed) : random_(seed) {}

  int below(int n) { return int(random_() % uint64_t(n)); }

  Json text() {
    static const std::vector<std::string> kTexts = {
        "",      "hello",    "line\nline",         "{{name}}", "a {{ x }} b", "{{",
        "}}{{{", "{not} it", "ä\u00e9 \U0001F600", "[]",       "null",        "7"};
    if (below(12) == 0) return nullptr;
    if (below(4) > 0) return std::string(size_t(below(150)), 'y');
    return kTexts[size_t(below(int(kTexts.size())))];
  }

  Json role() {
    static const std::vector<std::string> kRoles = {
        "user",      "assistant", "system", "human", "gpt",           "tool", "GPT",
        "developer", "model",     "User",   "bot",   "function_call", "zzz",  ""};
    if (below(40) == 0) return nullptr;
    return kRoles[size_t(below(below(8) ? 5 : int(kRoles.size())))];
  }

  Json turns(const std::vector<std::string>& keys, const Json& calls) {
    if (below(30) == 0) return nullptr;
    Json list = Json::array();
    for (int n = below(5); n > 0; --n) {
      if (below(60) == 0) {
        list.push_back(nullptr);
        continue;
      }
      Json turn;
      for (const auto& key : keys) {
        turn[key] = key == "role" || key == "from" ? role() : text();
        if (key == "tool_calls" || key == "function_call") {
          turn[key] = below(5) ? Json(nullptr) : calls;
        }
      }
      list.push_back(std::move(turn));
    }
    return list;
  }

 private:
  std::mt19937_64 random_;
};

using MakeRow = std::function<Json(RandomRows&)>;

void expect_same_on_random_rows(const Schema& schema, const MakeRow& make,
                                const NamedValues& columns = {}) {
  RandomRows random(7);
  for (int round = 0; round < 20; ++round) {
    Json rows = Json::array();
    for (int i = 0; i < 60; ++i) rows.push_back(make(random));
    const auto batch = batch_of(schema, rows);
    const auto rules = rules_for(*batch, columns, {{"name", "Ada"}});
    expect_same(rules, *batch);
    expect_same(rules, *batch->Slice(17, 29));
    if (testing::Test::HasFailure()) return;
  }
}

TEST(StandardizeBatch, IsTheSlowWayOnRandomConversations) {
  const std::vector<std::vector<std::string>> shapes = {
      {"role", "content"},
      {"from", "value"},
      {"role", "content", "from", "value"},
      {"role", "content", "lang", "name", "tool_call_id"},
      {"role", "content", "reasoning_content", "thinking"}};
  for (const auto& keys : shapes) {
    arrow::FieldVector fields;
    for (const auto& key : keys) fields.push_back(arrow::field(key, arrow::utf8()));
    expect_same_on_random_rows(turns_schema(fields), [&](RandomRows& random) {
      return Json{{"messages", random.turns(keys, nullptr)}};
    });
  }
}

TEST(StandardizeBatch, IsTheSlowWayWithMarksOfEveryType) {
  const std::vector<std::pair<std::shared_ptr<arrow::DataType>, std::vector<Json>>> types = {
      {arrow::boolean(), {true, false}},
      {arrow::int64(), {0, 1, 2}},
      {arrow::int32(), {0, 1}},
      {arrow::float64(), {0.0, 1.0, 0.5}},
      {arrow::utf8(), {"0", "true", "False", "maybe"}}};
  for (const auto& [type, values] : types) {
    auto turn = strings({"role", "content"});
    turn.push_back(arrow::field("weight", type));
    turn.push_back(arrow::field("train", arrow::boolean()));
    const auto schema = arrow::schema({arrow::field("messages", arrow::list(arrow::struct_(turn))),
                                       arrow::field("label", arrow::boolean())});
    expect_same_on_random_rows(schema, [&](RandomRows& random) {
      Json turns = random.turns({"role", "content"}, nullptr);
      for (auto& each : turns) {
        if (!each.is_object()) continue;
        if (random.below(3) == 0) each["weight"] = values[size_t(random.below(int(values.size())))];
        if (random.below(6) == 0) each["train"] = random.below(2) == 0;
      }
      return Json{{"messages", turns}, {"label", random.below(8) != 0}};
    });
  }
}

TEST(StandardizeRow, AMarkedAnswerAndAnEmptyOneAreContext) {
  const auto batch = batch_of(
      turns_schema({arrow::field("role", arrow::utf8()), arrow::field("content", arrow::utf8()),
                    arrow::field("weight", arrow::int64())}),
      Json::parse(R"([{"messages": [{"role": "user", "content": "q", "weight": 0},
                                    {"role": "assistant", "content": "bad", "weight": 0},
                                    {"role": "assistant", "content": " "},
                                    {"role": "assistant", "content": "good", "weight": 1}]},
                      {"messages": [{"role": "assistant", "content": "bad", "weight": 0}]},
                      {"messages": [{"role": "assistant", "content": ""}]},
                      {"messages": [{"role": "assistant", "content": "a", "weight": 2}]}])"));
  const auto rules = rules_for(*batch);
  std::vector<bool> learned;
  const auto row = *standardize_row(rules, row_to_json(*batch, 0));
  for (const Turn& turn : row.turns) learned.push_back(turn.learned);
  EXPECT_EQ(learned, (std::vector<bool>{true, false, false, true}));
  EXPECT_EQ(row.notes, (std::set<std::string>{"answers marked as not to be learned",
                                              "empty answers, not learned"}));
  EXPECT_EQ(standardize_row(rules, row_to_json(*batch, 1))->dropped,
            "every answer marked as not to be learned");
  EXPECT_EQ(standardize_row(rules, row_to_json(*batch, 2))->dropped, "empty answer");
  const auto unclear = standardize_row(rules, row_to_json(*batch, 3));
  ASSERT_FALSE(unclear.ok());
  EXPECT_NE(unclear.error().message.find("turn 0: weight: 2 is not understood"), std::string::npos)
      << unclear.error().message;
  expect_same(rules, *batch);
}

TEST(StandardizeBatch, IsTheSlowWayWithCallsSystemAndTools) {
  const std::vector<std::string> keys = {"role", "content", "tool_calls", "function_call"};
  auto turn = strings({"role", "content"});
  const auto function = arrow::struct_(
      {arrow::field("name", arrow::utf8()), arrow::field("arguments", arrow::utf8())});
  turn.push_back(arrow::field("tool_calls", arrow::list(function)));
  turn.push_back(arrow::field("function_call", arrow::utf8()));
  const auto schema =
      arrow::schema({arrow::field("messages", arrow::list(arrow::struct_(turn))),
                     arrow::field("system", arrow::large_utf8()),
                     arrow::field("tools", arrow::utf8()), arrow::field("id", arrow::int64())});
  expect_same_on_random_rows(schema, [&](RandomRows& random) {
    Json turns = random.turns(keys, nullptr);
    for (auto& each : turns) {
      if (!each.is_object()) continue;
      if (random.below(6) == 0) each["tool_calls"] = Json::array();
      if (random.below(12) == 0) each["tool_calls"] = {{{"name", "f"}, {"arguments", "{}"}}};
      if (random.below(12) == 0) each["function_call"] = R"({"name": "g"})";
    }
    return Json{{"messages", turns},
                {"system", random.text()},
                {"tools", random.below(4) ? Json(nullptr) : Json(R"([{"name": "f"}])")},
                {"id", 7}};
  });
}

TEST(StandardizeBatch, IsTheSlowWayOnRandomPairsAndTexts) {
  const auto pairs = [](RandomRows& random) {
    return Json{
        {"prompt", random.text()}, {"completion", random.text()}, {"system", random.text()}};
  };
  expect_same_on_random_rows(arrow::schema(strings({"prompt", "completion", "system"})), pairs);
  const auto turns = arrow::list(arrow::struct_(strings({"role", "content"})));
  expect_same_on_random_rows(
      arrow::schema({arrow::field("prompt", turns), arrow::field("completion", turns)}),
      [](RandomRows& random) {
        return Json{{"prompt", random.turns({"role", "content"}, nullptr)},
                    {"completion", random.turns({"role", "content"}, nullptr)}};
      });
  auto alpaca = strings({"instruction", "input", "output"});
  alpaca.push_back(arrow::field("history", arrow::list(arrow::list(arrow::utf8()))));
  expect_same_on_random_rows(arrow::schema(alpaca), [](RandomRows& random) {
    Json history = nullptr;
    if (random.below(4) == 0) history = Json::array();
    if (random.below(6) == 0) history = Json::array({Json::array({"q", "a"})});
    return Json{{"instruction", random.text()},
                {"input", random.text()},
                {"output", random.text()},
                {"history", history}};
  });
  expect_same_on_random_rows(arrow::schema(strings({"text"})), [](RandomRows& random) {
    return Json{{"text", random.text()}};
  });
}

TEST(StandardizeBatch, OtherTypesTakeTheSlowWay) {
  const auto number = arrow::schema(
      {arrow::field("prompt", arrow::int64()), arrow::field("completion", arrow::utf8())});
  expect_same_on_random_rows(number, [](RandomRows& random) {
    return Json{{"prompt", random.below(9)}, {"completion", random.text()}};
  });
  // A list of parts, and turns that are JSON.
  const auto part = arrow::struct_(strings({"type", "text"}));
  const auto schema = turns_schema(
      {arrow::field("role", arrow::utf8()), arrow::field("content", arrow::list(part))});
  expect_same_on_random_rows(schema, [](RandomRows& random) {
    Json parts = Json::array();
    for (int n = random.below(3); n > 0; --n) {
      parts.push_back({{"type", random.below(9) ? "text" : "image"}, {"text", random.text()}});
    }
    return Json{{"messages", Json::array({Json{{"role", random.role()}, {"content", parts}}})}};
  });
}

TEST(StandardizeBatch, ColumnsNamedByTheUserAreRead) {
  const auto schema = turns_schema(strings({"speaker", "words", "role"}), "talk");
  expect_same_on_random_rows(schema,
                             [](RandomRows& random) {
                               Json turns = random.turns({"role", "words"}, nullptr);
                               for (auto& turn : turns) {
                                 if (!turn.is_object()) continue;
                                 turn["speaker"] = random.role();
                               }
                               return Json{{"talk", turns}};
                             },
                             {{"messages", "talk"}, {"role", "speaker"}, {"content", "words"}});
}

TEST(StandardizeBatch, IsTheSlowWayOnRealData) {
  const char* given = std::getenv("LORRY_SHARED");
  const auto shared = (given ? std::filesystem::path(given)
                             : std::filesystem::path(LORRY_SOURCE_DIR) / ".." / "shared") /
                      "data";
  if (!std::filesystem::is_directory(shared)) GTEST_SKIP() << "no samples in " << shared;
  int64_t files = 0, rows = 0, slow = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(shared)) {
    if (!entry.path().extension().string().starts_with(".json")) continue;
    const auto found = find_files({entry.path().string()});
    ASSERT_TRUE(found.ok()) << found.error().message;
    auto reader = *open_reader(found->files, {});
    ASSERT_TRUE(reader->scan().ok());
    while (true) {
      const auto batch = reader->next();
      ASSERT_TRUE(batch.ok()) << batch.error().message;
      if (!*batch) break;
      const auto& columns = *(*batch)->rows;
      const auto rules = rules_for(columns, {}, {{"name", "Ada"}});
      expect_same(rules, columns);
      rows += columns.num_rows();
      slow += slow_rows(rules, columns);
    }
    ++files;
  }
  RecordProperty("rows", int(rows));
  RecordProperty("rows_through_json", int(slow));
  EXPECT_GE(files, 8);
  EXPECT_LT(slow, rows / 4) << "of " << rows;
}

}  // namespace
}  // namespace lorry::data

#include "data/reader.h"

#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <simdjson.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/conversations.h"
#include "data/shard.h"

namespace lorry::data {
namespace {

namespace fs = std::filesystem;

class ReaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("lorry-reader-" + std::to_string(::getpid()));
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }

  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(dir_ / name, std::ios::binary) << text;
    return (dir_ / name).string();
  }

  /// All rows of the file, or the error's message.
  Json read(const std::string& name, const std::string& text, ReadOptions options = {}) {
    auto found = find_files({write(name, text)});
    if (!found.ok()) return found.error().message;
    auto reader = *open_reader(found->files, options);
    if (const auto begun = reader->begin(); !begun.ok()) return begun.error().message;
    schema_ = reader->schema();
    Json rows = Json::array();
    while (true) {
      auto batch = reader->next();
      if (!batch.ok()) return batch.error().message;
      if (!*batch) {
        if (reader->is_settled()) return rows;
        if (const auto settled = reader->settle(); !settled.ok()) return settled.error().message;
        schema_ = reader->schema();
        rows = Json::array();
        continue;
      }
      for (int64_t i = 0; i < (*batch)->rows->num_rows(); ++i) {
        rows.push_back(row_to_json(*(*batch)->rows, i));
      }
    }
  }

  std::string type_of(const std::string& column) const {
    return schema_->GetFieldByName(column)->type()->ToString();
  }

  fs::path dir_;
  std::shared_ptr<arrow::Schema> schema_;
};

TEST_F(ReaderTest, RowsOfAnyJsonLayoutAreTheSameInBlocksOfAnySize) {
  const Json want = Json::parse(R"([{"a": "x]}\"", "b": [1, 2]}, {"a": "é", "b": []}])");
  const std::string first = want[0].dump(), second = want[1].dump();
  for (const int64_t size : {16, 17, 40, 1 << 20}) {
    ReadOptions options;
    options.block_bytes = size;
    EXPECT_EQ(read("l.jsonl", "\xEF\xBB\xBF" + first + "\r\n\r\n \n" + second, options), want);
    EXPECT_EQ(read("a.json", " \n[" + first + " ,\n" + second + "]\n ", options), want);
    EXPECT_EQ(read("p.json", want[0].dump(2) + "\n" + want[1].dump(2) + "\n", options), want);
  }
}

TEST_F(ReaderTest, MergesTheTypesOfAllJsonRows) {
  read("t.jsonl", R"({"i": 1, "d": 1, "m": 1, "s": {"x": null}, "l": [], "n": null})"
                  "\n"
                  R"({"i": -2, "d": 0.5, "m": "1", "s": {"x": true}, "l": ["a"], "new": "y"})");
  EXPECT_EQ(type_of("i"), "int64");
  EXPECT_EQ(type_of("d"), "double");
  EXPECT_EQ(type_of("m"), "extension<arrow.json>");
  EXPECT_EQ(type_of("s"), "struct<x: bool>");
  EXPECT_EQ(type_of("l"), "list<item: string>");
  EXPECT_EQ(type_of("n"), "null");
  EXPECT_EQ(type_of("new"), "string");
}

TEST_F(ReaderTest, NamesFileAndLineOfAMalformedRow) {
  const std::string message = read("bad.jsonl", "{\"a\": 1}\n\n{\"a\": \n{\"a\": 2}\n");
  EXPECT_NE(message.find("bad.jsonl: line 3: not valid JSON"), std::string::npos) << message;
  const std::string wide = read("wide.csv", "a,b\n\"1\n1\",2\n1,2,3\n");
  EXPECT_NE(wide.find("wide.csv: line 4: 3 fields"), std::string::npos) << wide;
}

TEST_F(ReaderTest, SkipsAsManyMalformedRowsAsItMay) {
  std::vector<std::string> skipped;
  ReadOptions options;
  options.skip_bad_rows = 1;
  options.on_bad_row = [&](const BadRow& bad) { skipped.push_back(bad.what); };
  EXPECT_EQ(read("s.jsonl", "{\"a\": 1}\nx\n{\"a\": 2}\n", options).size(), 2u);
  ASSERT_EQ(skipped.size(), 1u);
  EXPECT_TRUE(read("s.jsonl", "{\"a\": 1}\nx\ny\n", options).is_string());
}

TEST_F(ReaderTest, CsvFieldsMayHoldSeparatorsQuotesAndLines) {
  const Json rows = read("q.csv", "\xEF\xBB\xBFt,n,k\r\n\"a,\"\"b\"\"\r\nc\",1,true\r\né,,False\n");
  EXPECT_EQ(rows, Json::parse(R"([{"t": "a,\"b\"\r\nc", "n": 1, "k": "true"},
                                  {"t": "é", "n": null, "k": "False"}])"));
}

TEST_F(ReaderTest, CsvColumnsHaveATypeOnlyIfEveryFieldIsWrittenLikeItsValue) {
  const auto type = [&](const std::string& fields) {
    read("t.csv", "a,b\n" + fields);
    return type_of("a");
  };
  EXPECT_EQ(type("-1,x\n,x\n9223372036854775807,x\n"), "int64");
  EXPECT_EQ(type("1.5,x\n,x\n-0.3333333333333333,x\n1e-07,x\n"), "double");
  EXPECT_EQ(type("true,x\n,x\nfalse,x\n"), "bool");
  for (const char* text :
       {"007", "+1", " 1", "-0", "1.10", ".5", "5.", "1e3", "1E-07", "True", "FALSE", "NA", "null",
        "None", "nan", "inf", "12345678901234567890123", "0x10", "1_000"}) {
    EXPECT_EQ(type(std::string(text) + ",x\n"), "string") << text;
    EXPECT_EQ(read("t.csv", "a,b\n" + std::string(text) + ",x\n")[0]["a"], text);
  }
  EXPECT_EQ(type("1,x\n1.5,x\n"), "string");
  EXPECT_EQ(type("1,x\ntrue,x\n"), "string");
}

TEST_F(ReaderTest, NumbersThatJsonDoesNotHaveAreNull) {
  const std::string row = R"({"a": NaN, "s": "NaN \\\" NaN", "l": [1,Infinity, -Infinity]})";
  const Json want = Json::parse(R"({"a": null, "s": "NaN \\\" NaN", "l": [1, null, null]})");
  EXPECT_EQ(read("n.jsonl", row + "\n"), Json::array({want}));
  EXPECT_EQ(read("n.json", "[" + row + ",\n" + row + "]"), Json::array({want, want}));
  EXPECT_EQ(read("big.jsonl", R"({"a": NaN, "b": 123456789012345678901})")[0]["b"],
            123456789012345678901.0);
  for (const char* bad : {R"({"a": nan})", R"({"a": Infinit})", R"({"a": NaN, "a": NaN})"}) {
    EXPECT_TRUE(read("bad.jsonl", bad).is_string()) << bad;
  }
}

TEST_F(ReaderTest, NamesAFileWithoutRows) {
  for (const char* name : {"e.jsonl", "e.json"}) {
    const std::string message = read(name, "\n");
    EXPECT_NE(message.find(std::string(name) + ": no rows"), std::string::npos) << message;
  }
}

TEST_F(ReaderTest, TypesThatChangeInTheLastRowAreThoseOfAllRows) {
  // Past what a guess looks at: 8 blocks of 256 kB.
  std::string first;
  for (int i = 0; i < 200'000; ++i)
    first += R"({"n": 1, "s": "x", "o": {"k": 1}, "l": []})"
             "\n";
  ReadOptions options;
  options.block_bytes = 64 << 10;
  const char* lasts[] = {R"({"n": 0.5, "s": "x", "o": {"k": 1}, "l": []})",
                         R"({"n": 1, "s": 7, "o": {"k": 1}, "l": []})",
                         R"({"n": 1, "s": "x", "o": {"k": 1, "z": 2}, "l": []})",
                         R"({"n": 1, "s": "x", "o": {"k": 1}, "l": ["a"], "new": true})"};
  const char* types[] = {
      "n: double\ns: string\no: struct<k: int64>\nl: list<item: null>",
      "n: int64\ns: extension<arrow.json>\no: struct<k: int64>\nl: list<item: null>",
      "n: int64\ns: string\no: extension<arrow.json>\nl: list<item: null>",
      "n: int64\ns: string\no: struct<k: int64>\nl: list<item: string>\nnew: bool"};
  for (int i = 0; i < 4; ++i) {
    const Json rows = read("late.jsonl", first + lasts[i] + "\n", options);
    ASSERT_EQ(rows.size(), 200'001u) << rows.dump().substr(0, 200);
    EXPECT_EQ(schema_->ToString(), types[i]);
  }
}

TEST_F(ReaderTest, ColumnsComeInTheOrderInWhichRowsFirstNameThem) {
  std::string text;
  for (int i = 0; i < 40'000; ++i) {
    text += i == 20'001 ? R"({"a": 1, "late": 1, "z": 1})"
                          "\n"
                        : R"({"a": 1})"
                          "\n";
    if (i % 5000 == 4999)
      text += R"({"a": 1, "z": 2})"
              "\n";
  }
  read("order.jsonl", text);
  EXPECT_EQ(schema_->ToString(), "a: int64\nz: int64\nlate: int64");
}

TEST_F(ReaderTest, AKeyNamedTwiceMakesARowMalformedWhereverItIs) {
  ReadOptions options;
  options.skip_bad_rows = 3;
  const std::string text = R"({"a": 1, "o": {"k": [{"x": 1}]}})"
                           "\n"
                           R"({"a": 1, "a": "2"})"
                           "\n"
                           R"({"a": 1, "o": {"k": [{"x": 1, "x": 2}]}})"
                           "\n"
                           R"({"a": 1, "o": {"y": {"x": 1, "x": 2}}})"
                           "\n"
                           R"({"a": 3, "o": {"k": [{"x": 1}]}})"
                           "\n";
  EXPECT_EQ(read("twice.jsonl", text, options).size(), 2u);
  EXPECT_EQ(type_of("a"), "int64");
  EXPECT_EQ(type_of("o"), "struct<k: list<item: struct<x: int64>>>");
  options.skip_bad_rows = 2;
  EXPECT_TRUE(read("twice.jsonl", text, options).is_string());
}

TEST_F(ReaderTest, WhatItLearntIsRestoredFromItsState) {
  std::string text;
  for (int i = 0; i < 3000; ++i)
    text += R"({"a": 1, "b": {"c": [1, null]}})"
            "\n";
  auto found = *find_files({write("state.jsonl", text + R"({"a": 1, "n": 2})"
                                                        "\n")});
  ReadOptions options;
  options.block_bytes = 4096;
  auto whole = *open_reader(found.files, options);
  ASSERT_TRUE(whole->begin().ok());
  (void)whole->next();
  const auto second = **whole->next();
  const Json state = Json::parse(whole->state().dump());
  auto other = *open_reader(found.files, options);
  ASSERT_TRUE(other->restore(state).ok());
  ASSERT_TRUE(other->seek(second.begin).ok());
  int64_t rows = 0;
  while (auto batch = *other->next()) rows += batch->rows->num_rows();
  EXPECT_TRUE(other->is_settled());
  EXPECT_TRUE(other->schema()->Equals(*whole->schema()));
  EXPECT_LT(rows, 3001);
  EXPECT_FALSE(other->restore(Json::parse(R"({"guess": 1, "seen": {}})")).ok());
}

TEST_F(ReaderTest, ManyColumnsAndManyKeysTakeNoLongerThanTheyShould) {
  std::string wide = "{", maps;
  for (int i = 0; i < 5000; ++i) {
    wide += (i ? ",\"k" : "\"k") + std::to_string(i) + "\": " + std::to_string(i);
    maps += "{\"m\": {\"key" + std::to_string(i) + "\": 1, \"k\": 2}}\n";
  }
  const Json rows = read("wide.jsonl", wide + "}\n" + wide + "}\n");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1]["k4999"], 4999);
  EXPECT_EQ(read("maps.jsonl", maps).size(), 5000u);
  EXPECT_EQ(type_of("m"), "extension<arrow.json>");
}

TEST_F(ReaderTest, GoesOnFromTheBeginningOfABatch) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += "{\"a\": " + std::to_string(i) + "}\n";
  auto found = *find_files({write("g.jsonl", text)});
  ReadOptions options;
  options.block_bytes = 256;
  auto reader = *open_reader(found.files, options);
  ASSERT_TRUE(reader->scan().ok());
  (void)reader->next();
  const auto second = **reader->next();
  ASSERT_TRUE(reader->seek(second.begin).ok());
  EXPECT_TRUE((**reader->next()).rows->Equals(*second.rows));
}

TEST(Simdjson, IsNotTheOneInLibparquet) {
  Dl_info info;
  ASSERT_NE(::dladdr(reinterpret_cast<void*>(&simdjson::get_active_implementation), &info), 0);
  EXPECT_NE(std::string(info.dli_fname).find("libsimdjson"), std::string::npos) << info.dli_fname;
}

/// The standard form of one row whose columns are all text or JSON.
Result<StandardRow> standard(const Json& row, NamedValues placeholders = {}) {
  arrow::FieldVector fields;
  for (const auto& [name, value] : row.items()) fields.push_back(arrow::field(name, arrow::utf8()));
  LORRY_ASSIGN(const auto rules,
               find_rules(*arrow::schema(fields), {row}, {.placeholders = placeholders}));
  return standardize_row(rules, row);
}

std::string roles_and_texts(const Result<StandardRow>& row) {
  if (!row.ok()) return row.error().message;
  if (!row->dropped.empty()) return "dropped: " + row->dropped;
  std::string text;
  for (const Turn& turn : row->turns) text += turn.role + "=" + turn.content + ";";
  return text;
}

TEST(Conversations, AreReadFromEveryFormat) {
  const char* rows[] = {
      R"({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})",
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})",
      R"({"messages": "[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"}]"})",
      R"({"instruction": "q", "input": null, "output": "a"})",
      R"({"prompt": [{"role": "user", "content": "q"}], "completion": "a"})",
      R"({"question": "q", "answer": "a"})"};
  for (const char* row : rows) {
    EXPECT_EQ(roles_and_texts(standard(Json::parse(row))), "user=q;assistant=a;") << row;
  }
}

TEST(Conversations, WithoutAnAnswerAreDroppedAndUnknownRolesAreErrors) {
  EXPECT_EQ(roles_and_texts(standard(Json::parse(R"({"messages": []})"))),
            "dropped: empty conversation");
  const auto wizard =
      standard(Json::parse(R"({"messages": [{"role": "wizard", "content": "q"}]})"));
  EXPECT_NE(roles_and_texts(wizard).find("wizard"), std::string::npos);
}

TEST(Conversations, FillPlaceholders) {
  const auto row = standard(
      Json::parse(R"({"prompt": "{{ name }}", "completion": "{{x}} {{name}}"})"), {{"name", "L"}});
  EXPECT_EQ(roles_and_texts(row), "user=L;assistant={{x}} L;");
  EXPECT_EQ(row->placeholders, std::set<std::string>{"x"});
}

}  // namespace
}  // namespace lorry::data

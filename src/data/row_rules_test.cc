// Which columns play which part, and what is not decided by a guess.
#include "data/row_rules.h"

#include <arrow/type.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "data/conversations.h"

namespace lorry::data {
namespace {

Json json(const char* text) { return Json::parse(text); }

Result<RowRules> rules_of(const std::vector<Json>& rows, const RowOptions& options = {}) {
  arrow::FieldVector fields;
  for (const auto& [name, value] : rows.at(0).items()) {
    fields.push_back(arrow::field(name, arrow::utf8()));
  }
  return find_rules(*arrow::schema(fields), rows, options);
}

/// The turns of the first row as "role=text;...", or the error's text.
std::string read(const std::vector<Json>& rows, const RowOptions& options = {}) {
  const auto rules = rules_of(rows, options);
  if (!rules.ok()) return rules.error().message;
  const auto row = standardize_row(*rules, rows[0]);
  if (!row.ok()) return row.error().message;
  std::string text;
  for (const Turn& turn : row->turns) {
    text += turn.role + "=" + turn.content + ";";
    if (turn.reasoning_content) text += "(" + *turn.reasoning_content + ")";
  }
  for (const auto& note : row->notes) text += "note: " + note;
  return row->dropped.empty() ? text : "dropped: " + row->dropped;
}

std::string read(const char* row, const RowOptions& options = {}) {
  return read(std::vector<Json>{json(row)}, options);
}

void expect_asks(const std::string& error, std::initializer_list<const char*> words) {
  for (const char* word : words) EXPECT_NE(error.find(word), std::string::npos) << error;
}

TEST(Columns, OfAPairAreReadUnderAnyNameWithTheirInputAndHistory) {
  const std::pair<const char*, const char*> rows[] = {
      {R"({"instruction": "i", "context": "c", "response": "r", "category": "x"})", "user=i\nc;"},
      {R"({"instruction": "i", "input": "c", "response": "r"})", "user=i\nc;"},
      {R"({"question": "i", "context": "c", "answer": "r"})", "user=i\nc;"},
      {R"({"input": "i", "output": "r"})", "user=i;"},
      {R"({"input": "i", "context": "c", "output": "r"})", "user=i\nc;"},
      {R"({"Question": "i", "Answer": "r"})", "user=i;"},
      {R"({"INSTRUCTION": "i", "RESPONSE": "r"})", "user=i;"},
      {R"({"user": "i", "assistant": "r"})", "user=i;"},
      {R"({"prompt": "i", "generation": "r"})", "user=i;"},
      {R"({"system": "s", "prompt": "i", "response": "r"})", "system=s;user=i;"},
      {R"({"prompt": "i", "response": "r", "history": [["h", "a"]]})",
       "user=h;assistant=a;user=i;"}};
  for (const auto& [row, prompt] : rows) {
    EXPECT_EQ(read(row), std::string(prompt) + "assistant=r;") << row;
  }
}

TEST(Columns, OfAnswersToOneQuestionGiveTheFirst) {
  EXPECT_EQ(read(R"({"id": "1", "title": "t", "context": "Paris is big.", "question": "What?",
                     "answers": {"text": ["Paris"], "answer_start": [0]}})"),
            "user=What?\nParis is big.;assistant=Paris;");
  EXPECT_EQ(read(R"({"question": "q", "context": "c", "answers": [
                     {"text": "a", "answer_start": 1}, {"text": "b", "answer_start": 2}]})"),
            "user=q\nc;assistant=a;note: several answers to one question, of which the first is "
            "taken");
  EXPECT_EQ(
      read(R"({"question": "q", "context": "c", "answers": {"text": [], "answer_start": []}})"),
      "dropped: empty completion");
  expect_asks(read(R"({"question": "q", "answers": ["a", "b"]})"), {"no format"});
}

TEST(Columns, OfGeminisTurnsAreReadPartByPart) {
  EXPECT_EQ(read(R"({"systemInstruction": {"role": "system", "parts": [{"text": "s"}]},
                     "contents": [{"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
                                  {"role": "model", "parts": [{"text": "t", "thought": true},
                                                              {"text": "c"}]}]})"),
            "system=s;user=ab;assistant=c;(t)");
  const std::vector<Json> rows = {json(R"({"contents": [
      {"role": "user", "parts": [{"text": "q", "functionCall": null}]},
      {"role": "model", "parts": [{"text": null, "functionCall": {"name": "f", "args": {"x": 1}}}]},
      {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"y": 2}}}]},
      {"role": "model", "parts": [{"text": "a"}]}]})")};
  const auto row = standardize_row(*rules_of(rows), rows[0]);
  ASSERT_TRUE(row.ok()) << row.error().message;
  ASSERT_EQ(row->turns.size(), 4U);
  EXPECT_EQ(Json::parse(row->turns[1].tool_calls.value_or(""))[0]["function"]["arguments"]["x"], 1);
  EXPECT_EQ(row->turns[2].role + row->turns[2].content, R"(tool{"y":2})");
  EXPECT_EQ(row->turns[2].name, "f");
  RowRules rules = *rules_of(rows);
  const auto picture = standardize_row(
      rules, json(R"({"contents": [{"role": "user", "parts": [{"inlineData": {"data": ""}}]}]})"));
  ASSERT_FALSE(picture.ok());
  expect_asks(picture.error().message, {"parts of type \"inlineData\""});
}

TEST(Rows, ThatAreNoExamplesByThemselvesAreRefused) {
  const char* message =
      R"({"message_id": "2", "parent_id": "1", "text": "hi", "role": "prompter"})";
  expect_asks(read(message), {"single messages of trees", "--columns text=text"});
  EXPECT_TRUE(rules_of({json(message)}, {.columns = {{"text", "text"}}}).ok());
}

TEST(Texts, MayBeInPartsOfWhichSomeAreLearned) {
  const auto standard = [](const char* row) {
    return standardize_row(*rules_of({json(R"({"segments": [{"label": true, "text": "a"}]})")}),
                           json(row));
  };
  const auto row = standard(
      R"({"segments": [{"label": false, "text": "<s>a\n"}, {"label": 1, "text": "b</s>"}]})");
  ASSERT_TRUE(row.ok());
  EXPECT_EQ(row->text, "<s>a\nb</s>");
  EXPECT_EQ(json(row->segments->c_str()),
            json(R"([{"label": false, "text": "<s>a\n"}, {"label": true, "text": "b</s>"}])"));
  EXPECT_EQ(standard(R"({"segments": [{"label": false, "text": "a"}]})")->dropped,
            "no part is to be learned");
  EXPECT_EQ(standard(R"({"segments": null})")->dropped, "empty text");
  const auto odd = standard(R"({"segments": [{"label": "maybe", "text": "a"}]})");
  ASSERT_FALSE(odd.ok());
  expect_asks(odd.error().message, {"column segments", "maybe", "label"});
}

TEST(Columns, ThatAreOrdinaryAreNotAskedAbout) {
  EXPECT_EQ(
      read(R"({"id": "7", "source": "web", "category": "qa", "lang": "en", "url": "http://a/b",
               "split": "train", "score": 0.5, "user": "u12", "metadata": {"tags": ["a"]},
               "question": "q", "answer": "a"})"),
      "user=q;assistant=a;");
}

TEST(Columns, ThatLookLikeAPartOfThePromptStopWithTheFlagThatDecides) {
  const char* mcq = R"({"question": "q", "choices": ["x", "y"], "answer": 1})";
  expect_asks(read(mcq), {"column choices", "--columns input=choices", "--ignore-columns choices"});
  EXPECT_EQ(read(mcq, {.ignored = {"choices"}}), "user=q;assistant=1;");
  // Axolotl's context_qa.
  const char* article =
      R"({"article": "The sky is blue.", "question": "Its colour?", "answer": "Blue"})";
  expect_asks(read(article), {"column article", "--columns input=article"});

  const char* chat = R"({"context": "c", "messages": [{"role": "user", "content": "q"},
                                                      {"role": "assistant", "content": "a"}]})";
  expect_asks(read(chat), {"column context", "--columns system=context"});
  EXPECT_EQ(read(chat, {.columns = {{"system", "context"}}}), "system=c;user=q;assistant=a;");
  EXPECT_EQ(read(chat, {.ignored = {"context"}}), "user=q;assistant=a;");

  expect_asks(read(R"({"instruction": "Be brief.", "question": "q", "answer": "a"})"),
              {"column instruction", "--columns input=instruction"});
}

TEST(Columns, ThatTheConversationRepeatsAreNotAskedAbout) {
  EXPECT_EQ(read(R"({"prompt": "q", "instruction": " q\n", "input": "",
                     "messages": [{"role": "user", "content": "q"},
                                  {"role": "assistant", "content": "a"}]})"),
            "user=q;assistant=a;");
}

TEST(Columns, OfWatchedNamesMakeALaterRowMalformed) {
  std::vector<Json> rows = {json(
      R"({"context": null, "messages": [{"role": "user", "content": "q"},
                                        {"role": "assistant", "content": "a"}]})")};
  const auto rules = rules_of(rows);
  ASSERT_TRUE(rules.ok());
  Json later = rows[0];
  later["context"] = "It was in 1871.";
  const auto row = standardize_row(*rules, later);
  ASSERT_FALSE(row.ok());
  expect_asks(row.error().message, {"column context", "without it"});
}

/// Rows of a question about a text whose words the answer has; `column` holds the text.
std::vector<Json> rows_about_texts(const char* column) {
  const std::pair<const char*, const char*> facts[] = {
      {"Harbour town founded by Danish sailors", "Danish sailors founded that harbour town"},
      {"Copper mines closed after heavy floods", "Heavy floods closed those copper mines"},
      {"Wooden bridge burned during winter", "Burned during winter, like every wooden bridge"}};
  std::vector<Json> rows;
  for (const auto& [text, answer] : facts) {
    rows.push_back({{"question", "What happened?"}, {"answer", answer}, {column, text}});
  }
  return rows;
}

TEST(Columns, ThatShareTheirWordsWithTheAnswersAreAskedAbout) {
  const auto rows = rows_about_texts("report");
  expect_asks(read(rows), {"column report", "--columns input=report", "--ignore-columns report",
                           "--columns reasoning=report"});
  expect_asks(read(rows, {.columns = {{"input", "report"}}}), {"user=What happened?\nHarbour"});
  expect_asks(read(rows, {.columns = {{"reasoning", "report"}}}), {"(Harbour town"});
  EXPECT_TRUE(rules_of(rows, {.ignored = {"report"}}).ok());
}

TEST(Columns, ThatShowTheWholeRowOrOtherRowsWordsAreNotAskedAbout) {
  auto rows = rows_about_texts("report");
  for (Json& row : rows) {
    row["report"] = "### Question\n" + row["question"].get<std::string>() + "\n### Answer\n" +
                    row["answer"].get<std::string>();
  }
  EXPECT_TRUE(rules_of(rows).ok());
  for (Json& row : rows) {
    row["report"] = dump_json({{{"role", "user"}, {"content", row["question"]}},
                               {{"role", "assistant"}, {"content", row["answer"]}}});
  }
  EXPECT_TRUE(rules_of(rows).ok());
  for (Json& row : rows) row["report"] = "That town of heavy floods had sailors during winter";
  EXPECT_TRUE(rules_of(rows).ok());
}

TEST(Columns, OfFilledTemplatesAreNotAskedAbout) {
  std::vector<Json> rows;
  for (int i = 0; i < 8; ++i) {
    const std::string n = std::to_string(i);
    rows.push_back({{"instruction", "Do " + n},
                    {"input", i % 2 ? "" : "with the thing number " + n},
                    {"output", "Done " + n}});
    const auto text = [&](const char* part) { return rows.back()[part].get<std::string>(); };
    rows.back()["prompt"] = "### Instruction:\n" + text("instruction") + "\n\n### Input:\n" +
                            text("input") + "\n\n### Response:\n";
  }
  EXPECT_EQ(read(rows), "user=Do 0\nwith the thing number 0;assistant=Done 0;");
  for (Json& row : rows) {
    row["response"] = row["output"];
    row.erase("output");
  }
  // The prompt has the input already.
  const auto rules = rules_of(rows);
  ASSERT_TRUE(rules.ok()) << rules.error().message;
  EXPECT_EQ(describe_parts(*rules), "prompt: prompt; answer: response");
}

TEST(Columns, OfTwoAnswersAreOneIfOneIsInTheOther) {
  EXPECT_EQ(read(R"({"problem": "6*7?", "solution": "It is 42.", "answer": "42"})"),
            "user=6*7?;assistant=It is 42.;");
  EXPECT_EQ(read(R"({"problem": "6*7?", "answer": "It is 42.", "solution": 42})"),
            "user=6*7?;assistant=It is 42.;");
  const char* two = R"({"question": "q", "answer": "yes", "response": "no"})";
  expect_asks(read(two), {"answer", "response", "--columns completion=response"});
  EXPECT_EQ(read(two, {.columns = {{"completion", "answer"}}}), "user=q;assistant=yes;");
  EXPECT_EQ(read(two, {.ignored = {"answer"}}), "user=q;assistant=no;");
}

TEST(Columns, OfTwoConversationsMustSayTheSame) {
  const char* same = R"({"messages": [{"role": "user", "content": "q"},
                                      {"role": "assistant", "content": "a"}],
                         "conversations": [{"from": "human", "value": "q"},
                                           {"from": "gpt", "value": "a"}]})";
  EXPECT_EQ(read(same), "user=q;assistant=a;");
  Json other = json(same);
  other["messages"][1]["content"] = "b";
  expect_asks(read({other}), {"--columns messages=messages"});
  EXPECT_EQ(read({other}, {.columns = {{"messages", "messages"}}}), "user=q;assistant=b;");
}

TEST(Columns, OfTextBesideAnAnswerAreAskedAbout) {
  expect_asks(read(R"({"text": "A long story.", "output": "Short."})"),
              {"--columns prompt=text,completion=output"});
  EXPECT_TRUE(rules_of({json(R"({"text": "Q: q A: a", "output": "a"})")}).ok());
}

TEST(Columns, OfPicturesAndSoundsAreRefusedWhereTheyHoldAny) {
  const char* row = R"({"prompt": "q", "completion": "a", "images": ["a.png"], "audio": null})";
  expect_asks(read(row), {"column images", "--ignore-columns images"});
  EXPECT_EQ(read(row, {.ignored = {"images"}}), "user=q;assistant=a;");
  EXPECT_EQ(read(R"({"prompt": "q", "completion": "a", "image": {"bytes": null, "path": ""}})"),
            "user=q;assistant=a;");
}

TEST(Columns, OfASystemMessageBesideASystemTurnAreNoted) {
  EXPECT_EQ(read(R"({"system": "Be kind.", "messages": [{"role": "system", "content": "Be Bob."},
                     {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})"),
            "system=Be Bob.;user=q;assistant=a;note: column system left out beside a system turn");
  EXPECT_EQ(read(R"({"system": "Be Bob.", "messages": [{"role": "system", "content": "Be Bob."},
                     {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})"),
            "system=Be Bob.;user=q;assistant=a;");
}

TEST(Columns, OfPreferencePairsAreNamedAndTheChosenAnswersCanBeLearned) {
  const RowOptions prefer{.prefer = "chosen"};
  const char* rows[] = {R"({"prompt": "q", "chosen": "a", "rejected": "b"})",
                        R"({"instruction": "q", "input": "", "chosen": "a", "rejected": "b"})",
                        R"({"prompt": [{"role": "user", "content": "q"}],
          "chosen": [{"role": "assistant", "content": "a"}],
          "rejected": [{"role": "assistant", "content": "b"}]})",
                        R"({"prompt": "q",
          "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
          "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]})",
                        R"({"conversations": [{"from": "human", "value": "q"}],
          "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}})",
                        R"({"input": {"messages": [{"role": "user", "content": "q"}], "tools": []},
          "preferred_output": [{"role": "assistant", "content": "a"}],
          "non_preferred_output": [{"role": "assistant", "content": "b"}]})"};
  for (const char* row : rows) {
    expect_asks(read(row), {"preference pairs", "--prefer chosen"});
    EXPECT_EQ(read(row, prefer), "user=q;assistant=a;") << row;
  }
  expect_asks(read(R"({"prompt": "q", "completion": "a"})", prefer), {"--prefer chosen"});
  expect_asks(read(R"({"chosen": "Human: q Assistant: a", "rejected": "Human: q"})", prefer),
              {"no column with their prompts"});
}

TEST(Conversations, MayHaveTheirAnswersInAColumn) {
  EXPECT_EQ(read(R"({"messages": [{"role": "user", "content": "q"}], "response": "a"})"),
            "user=q;assistant=a;");
}

TEST(Conversations, AreReadInTheShapesThatDataSetsGiveThem) {
  const char* rows[] = {
      R"({"conversations": ["q", "a"]})",
      R"({"data": ["q", "a"], "id": "0"})",
      R"({"messages": [["user", "q"], ["assistant", "a"]]})",
      R"({"messages": [{"user": "q", "assistant": "a"}]})",
      R"({"conversation": [{"output": "a", "input": "q", "system": ""}]})",
      R"({"messages": "[{'role': 'user', 'content': 'q'}, {'role': 'assistant', 'content': \"a\"}]"})",
      R"({"messages": "[{'from': 'human', 'value': 'q'}\n {'from': 'gpt', 'value': 'a'}]"})",
      R"({"dialog": [{"role": "user", "content": "q"}, {"role": "assistant ", "content": "a"}]})"};
  for (const char* row : rows) EXPECT_EQ(read(row), "user=q;assistant=a;") << row;
}

TEST(Conversations, OfNoKnownShapeSayWhatTheyAre) {
  expect_asks(read(R"({"messages": [["q", "a"]]})"), {"a list of pairs", "\"q\" is no role"});
  expect_asks(read(R"({"messages": [{"speaker": "x", "words": "y"}]})"),
              {"the keys speaker, words", "--columns role=KEY,content=KEY"});
  expect_asks(read(R"({"prompt": {"0": "q", "1": "r"}, "completion": {"0": "a", "1": "b"}})"),
              {"pandas", "records"});
  expect_asks(read(R"({"version": 1, "data": [{"prompt": "q", "completion": "a"}]})"),
              {"one object with its rows in \"data\""});
  expect_asks(read(R"({"prompt": "q", "completion": ["a", "b"]})"), {"a list of texts"});
}

TEST(Roles, OfOtherNamesAreSaidByTheUser) {
  const char* row = R"({"conversations": [{"from": "customer", "value": "q"},
                                          {"from": " Agent", "value": "a"}]})";
  expect_asks(read(row), {"unknown role \"customer\"", "--roles \"customer=user\""});
  EXPECT_EQ(read(row, {.roles = {{"customer", "user"}, {"agent", "assistant"}}}),
            "user=q;assistant=a;");
  expect_asks(read(row, {.roles = {{"customer", "person"}}}), {"unknown role", "user, assistant"});
}

}  // namespace
}  // namespace lorry::data

#include "data/tool_calls.h"

#include <gtest/gtest.h>

namespace lorry::data {
namespace {

Json json(const char* text) { return *parse_json(text, "test"); }

std::string calls(const Json& given) {
  const auto found = tool_calls(given);
  return found.ok() ? dump_json(*found) : "error: " + found.error().message;
}

std::string tools(const char* given) {
  const auto found = tool_definitions(json(given));
  return found.ok() ? dump_json(*found) : "error: " + found.error().message;
}

TEST(ToolCalls, AreReadInTheFormsThatDataSetsHave) {
  constexpr char kCall[] = R"([{"type":"function","function":{"name":"f","arguments":{"x":1}}}])";
  for (const char* given : {
           R"({"type": "function", "function": {"name": "f", "arguments": {"x": 1}}})",
           R"([{"type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}])",
           R"({"name": "f", "arguments": {"x": 1}})",
           R"([{"name": "f", "parameters": {"x": 1}}])",
           R"({"name": "f", "args": {"x": 1}, "type": "tool_call"})",
           R"({"name": "f", "arguments": null, "args": {"x": 1}})",
           R"({"type": "tool_use", "name": "f", "input": {"x": 1}})",
           R"({"functionCall": {"name": "f", "args": {"x": 1}}})",
           R"({"function": "f", "arguments": {"x": 1}})",
       }) {
    EXPECT_EQ(calls(json(given)), kCall) << given;
    EXPECT_EQ(calls(Json(given)), kCall) << given;
  }
  EXPECT_EQ(
      calls(Json("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>\n")),
      kCall);
  EXPECT_EQ(calls(json(R"({"id": "a", "type": "tool_use", "name": "f", "input": {}})")),
            R"([{"id":"a","type":"function","function":{"name":"f","arguments":{}}}])");
  EXPECT_EQ(calls(json(R"({"name": "f"})")),
            R"([{"type":"function","function":{"name":"f","arguments":{}}}])");
}

TEST(ToolCalls, ThatCannotBeReadAreRefused) {
  EXPECT_EQ(calls(json(R"({"name": "f", "arguments": "{bad"})")),
            "error: the arguments of the tool call f are no JSON object, but text: {bad");
  EXPECT_EQ(calls(json(R"({"name": "f", "arguments": "{'x': 1}"})")),
            "error: the arguments of the tool call f are no JSON object, but text: {'x': 1}");
  EXPECT_EQ(calls(json(R"({"name": "f", "arguments": [1]})")),
            "error: the arguments of the tool call f are no JSON object, but array");
  EXPECT_EQ(calls(json(R"({"function": {"name": "f", "params": {"x": 1}}})")),
            "error: the tool call f has no arguments, but params; call them \"arguments\"");
}

TEST(ToolCalls, WhatIsNoCallIsNone) {
  for (const char* given : {"{\"x\": 1}", "[]", "[1]", "\"f(x=1)\"", "null"})
    EXPECT_EQ(calls(json(given)), "null") << given;
  EXPECT_EQ(calls(Json("f(x=1)")), "null");
}

TEST(ToolDefinitions, AreReadInTheFormsThatDataSetsHave) {
  constexpr char kTool[] =
      R"([{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}])";
  EXPECT_EQ(tools(kTool), kTool);
  EXPECT_EQ(tools(R"({"name": "f", "parameters": {"type": "object"}})"), kTool);
  EXPECT_EQ(tools(R"(["{\"name\": \"f\", \"parameters\": {\"type\": \"object\"}}"])"), kTool);
  EXPECT_EQ(tools(R"([{"name": "f", "input_schema": {"type": "object"}}])"), kTool);
  EXPECT_EQ(
      tools(R"([{"functionDeclarations": [{"name": "f", "parameters": {"type": "object"}}]}])"),
      kTool);
  EXPECT_EQ(tools("[]"), "[]");
}

TEST(ToolDefinitions, ThatAreNamesOrAnythingElseAreRefused) {
  EXPECT_EQ(tools(R"([{"name": "f"}, "search"])"),
            "error: tool 1 is not a definition such as {\"name\", \"description\", "
            "\"parameters\"}, but text: search");
  for (const char* given : {"[1, 2]", "[null]", "[[]]", "[{}]", "{}", "{\"a\": 1}", "[\"{bad\"]"})
    EXPECT_TRUE(tools(given).starts_with("error: tool 0 is not a definition")) << tools(given);
}

}  // namespace
}  // namespace lorry::data

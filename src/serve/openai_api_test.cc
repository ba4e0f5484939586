#include "serve/openai_api.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace lorry::serve {
namespace {

std::variant<ChatRequest, ApiError> chat(std::string_view text) {
  return parse_chat_request(Json::parse(text), {});
}
ApiError chat_error(std::string_view text) {
  const auto result = chat(text);
  return std::holds_alternative<ApiError>(result) ? std::get<ApiError>(result) : ApiError{200};
}
ChatRequest chat_ok(std::string_view text) {
  auto result = chat(text);
  if (const auto* error = std::get_if<ApiError>(&result)) ADD_FAILURE() << error->message;
  return std::holds_alternative<ChatRequest>(result) ? std::get<ChatRequest>(result)
                                                     : ChatRequest{};
}

TEST(ChatRequest, ReadsEveryFieldThatItKnows) {
  const ChatRequest request = chat_ok(R"({"messages": [{"role": "user", "content": "hi"}],
      "temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "seed": -3, "max_tokens": 5,
      "max_completion_tokens": 6, "stop": ["a", "b"], "n": 2, "logprobs": true, "top_logprobs": 3,
      "stream": true, "stream_options": {"include_usage": true}, "logit_bias": {"12": -100},
      "ignore_eos": true, "unheard_of": {}, "user": "me"})");
  EXPECT_EQ(request.sampling.temperature, 0.5);
  EXPECT_EQ(request.sampling.top_p, 0.9);
  EXPECT_EQ(request.sampling.top_k, 7);
  EXPECT_EQ(request.sampling.min_p, 0.1);
  EXPECT_EQ(request.seed, static_cast<uint64_t>(-3));
  EXPECT_EQ(request.max_tokens, 6);
  EXPECT_EQ(request.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(request.n, 2);
  EXPECT_EQ(request.top_logprobs, 3);
  EXPECT_TRUE(request.stream && request.include_usage && request.ignore_eos);
  EXPECT_EQ(request.logit_bias.at(0), (std::pair<int32_t, float>(12, -100)));
}

TEST(ChatRequest, ReadsTheFieldsOfVllmThatShapeTheAnswer) {
  const ChatRequest request = chat_ok(R"({"messages": [{"role": "user", "content": "hi"}],
      "include_stop_str_in_output": true, "return_token_ids": true, "skip_special_tokens": false,
      "return_tokens_as_token_ids": true, "parallel_tool_calls": false, "verbosity": "medium",
      "tools": [{"type": "function", "function": {"name": "f"}}], "reasoning_effort": "high",
      "stream_options": {"include_usage": true, "continuous_usage_stats": true}})");
  EXPECT_TRUE(request.include_stop && request.return_token_ids && request.tokens_as_ids);
  EXPECT_FALSE(request.skip_special_tokens);
  EXPECT_TRUE(request.one_call && request.continuous_usage);
  EXPECT_EQ(request.template_fields.size(), 1U);
  EXPECT_EQ(request.template_fields.at(0).first, "reasoning_effort");
}

TEST(ChatRequest, NullIsTheSameAsAbsent) {
  const ChatRequest request = chat_ok(
      R"({"messages": [{"role": "user", "content": "hi"}], "temperature": null, "stop": null})");
  EXPECT_EQ(request.sampling.temperature, 1.0);
  EXPECT_TRUE(request.stop.empty());
  EXPECT_FALSE(request.max_tokens.has_value());
}

TEST(ChatRequest, PartsOfTextBecomeOneString) {
  const ChatRequest request = chat_ok(R"({"messages": [{"role": "user", "content":
      [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]})");
  EXPECT_EQ(request.messages[0]["content"], "a\nb");
}

TEST(ChatRequest, ToolCallArgumentsBecomeAnObject) {
  const ChatRequest request = chat_ok(R"({"messages": [{"role": "assistant", "content": null,
      "tool_calls": [{"function": {"name": "f", "arguments": "{\"x\": 1}"}}]}]})");
  EXPECT_EQ(request.messages[0]["tool_calls"][0]["function"]["arguments"]["x"], 1);
}

TEST(ChatRequest, CallsOfTheHistoryMeanWhatTheirAuthorMeant) {
  const ChatRequest request = chat_ok(R"({"messages": [
      {"role": "assistant", "content": null, "tool_calls": []},
      {"role": "assistant", "content": "hi", "tool_calls": null},
      {"role": "assistant", "content": null, "tool_calls": [
        {"function": {"name": "f", "arguments": ""}}, {"function": {"name": "f"}},
        {"function": {"name": "f", "arguments": {"x": 1}}}]}]})");
  EXPECT_EQ(request.messages[0], (Json{{"role", "assistant"}, {"content", ""}}));
  EXPECT_EQ(request.messages[1], (Json{{"role", "assistant"}, {"content", "hi"}}));
  const Json& calls = request.messages[2]["tool_calls"];
  EXPECT_EQ(calls[0]["function"]["arguments"], Json::object());
  EXPECT_EQ(calls[1]["function"]["arguments"], Json::object());
  EXPECT_EQ(calls[2]["function"]["arguments"]["x"], 1);
}

TEST(ChatRequest, ToolsMayBeCalledUnlessTheChoiceIsNone) {
  const std::string head = R"({"messages": [{"role": "user", "content": "hi"}],
      "tools": [{"type": "function", "function": {"name": "f"}}])";
  EXPECT_EQ(chat_ok(head + "}").callable, std::vector<std::string>{"f"});
  EXPECT_TRUE(chat_ok(head + R"(, "tool_choice": "none"})").callable.empty());
  EXPECT_EQ(chat_error(R"({"messages": [{"role": "user", "content": "hi"}], "tools": [{}]})").param,
            "tools");
}

TEST(ChatRequest, DeepArgumentsOfAToolCallStayText) {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  const Json body = {
      {"messages",
       {{{"role", "assistant"},
         {"tool_calls",
          {{{"function", {{"name", "f"}, {"arguments", "{\"x\": " + deep + "}"}}}}}}}}}};
  const auto result = parse_chat_request(body, {});
  const auto& calls = std::get<ChatRequest>(result).messages[0]["tool_calls"];
  EXPECT_TRUE(calls[0]["function"]["arguments"].is_string());
}

TEST(ChatRequest, AWrongTypeIsRefusedByName) {
  const std::string head = R"({"messages": [{"role": "user", "content": "hi"}], )";
  for (const auto& [field, value] : std::vector<std::pair<std::string, std::string>>{
           {"temperature", "\"hot\""},
           {"temperature", "-1"},
           {"top_p", "2"},
           {"max_tokens", "1.5"},
           {"max_tokens", "0"},
           {"stop", "3"},
           {"stream", "\"yes\""},
           {"n", "0"},
           {"logit_bias", "[1]"},
           {"tools", "{}"},
           {"tool_choice", "{\"a\":1}"},
           {"seed", "[]"},
           {"response_format", R"({"type": "json_object"})"}}) {
    const ApiError error = chat_error(head + "\"" + field + "\": " + value + "}");
    EXPECT_EQ(error.status, 400) << field << " " << value;
    EXPECT_EQ(error.param, field) << value;
    EXPECT_NE(error.message.find(field), std::string::npos);
  }
}

TEST(ChatRequest, MessagesAreChecked) {
  for (const char* body :
       {"{}", R"({"messages": []})", R"({"messages": "hi"})", R"({"messages": [1]})",
        R"({"messages": [{"content": "hi"}]})", R"({"messages": [{"role": "user"}]})",
        R"({"messages": [{"role": "user", "content": 3}]})",
        R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})"}) {
    const ApiError error = chat_error(body);
    EXPECT_EQ(error.status, 400) << body;
    EXPECT_EQ(error.param, "messages") << body;
  }
}

TEST(CompletionRequest, TakesTextAndIds) {
  const auto prompts = [](const char* text) {
    auto result = parse_completion_request(Json::parse(text), {});
    return std::get<CompletionRequest>(result).prompts;
  };
  EXPECT_EQ(std::get<std::string>(prompts(R"({"prompt": "a"})").at(0)), "a");
  EXPECT_EQ(prompts(R"({"prompt": ["a", "b"]})").size(), 2u);
  EXPECT_EQ(std::get<1>(prompts(R"({"prompt": [1, 2]})").at(0)), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(std::get<1>(prompts(R"({"prompt": [[1], [2, 3]]})").at(1)),
            (std::vector<int32_t>{2, 3}));
}

TEST(ParseBody, RefusesWhatIsNotAnObject) {
  EXPECT_TRUE(std::holds_alternative<ApiError>(parse_body("[1]")));
  EXPECT_TRUE(std::holds_alternative<ApiError>(parse_body("{\"a\": ")));
  EXPECT_TRUE(std::holds_alternative<ApiError>(parse_body(std::string(1000, '['))));
  EXPECT_TRUE(std::holds_alternative<Json>(parse_body(R"({"a": "[[[\"["})")));
}

TEST(ErrorBody, HasTheFourFieldsOfTheApi) {
  const Json body = Json::parse(error_body(context_length_error(100, 120, "messages")));
  EXPECT_EQ(body["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(body["error"]["type"], "invalid_request_error");
  EXPECT_EQ(body["error"]["param"], "messages");
  EXPECT_NE(body["error"]["message"].get<std::string>().find("120 tokens"), std::string::npos);
}

}  // namespace
}  // namespace lorry::serve

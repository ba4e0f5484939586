#include "serve/request_fields.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace lorry::serve {
namespace {

std::string refused(std::string_view body, Route route = Route::kChat) {
  const auto field = refused_field(Json::parse(body), route);
  return field ? field->name : "";
}

TEST(RequestFields, WhatWouldChangeTheAnswerIsRefused) {
  EXPECT_EQ(refused(R"({"messages": [], "min_tokens": 3})"), "min_tokens");
  EXPECT_EQ(refused(R"({"structured_outputs": {"json": {}}})"), "structured_outputs");
  EXPECT_EQ(refused(R"({"modalities": ["text", "audio"]})"), "modalities");
  EXPECT_EQ(refused(R"({"add_generation_prompt": false})"), "add_generation_prompt");
  EXPECT_EQ(refused(R"({"prompt_logprobs": 0})"), "prompt_logprobs");
  EXPECT_EQ(refused(R"({"priority": -1})"), "priority");
}

TEST(RequestFields, AValueThatAsksForNothingIsNot) {
  for (const char* body :
       {R"({"min_tokens": 0, "min_tokens_": 1})", R"({"guided_json": null, "bad_words": []})",
        R"({"grammar": "", "vllm_xargs": {}})", R"({"modalities": ["text"]})", R"({"echo": false})",
        R"({"add_generation_prompt": true})", R"({"typical_p": 1.0})",
        R"({"store": true, "user": "me", "service_tier": "flex", "length_penalty": 2})"}) {
    EXPECT_EQ(refused(body), "") << body;
  }
}

TEST(RequestFields, AFieldMayBeReadOnOneRouteAndRefusedOnTheOther) {
  EXPECT_EQ(refused(R"({"echo": true})", Route::kChat), "echo");
  EXPECT_EQ(refused(R"({"echo": true})", Route::kCompletions), "");
  EXPECT_EQ(refused(R"({"suffix": "x"})", Route::kCompletions), "suffix");
  EXPECT_EQ(refused(R"({"suffix": ""})", Route::kCompletions), "");
}

TEST(RequestFields, UnknownOnesAreNamed) {
  const Json body = Json::parse(R"({"messages": [], "temprature": 1, "prompt": "x", "seed": 1})");
  EXPECT_EQ(unknown_fields(body, Route::kChat), (std::vector<std::string>{"temprature", "prompt"}));
  EXPECT_EQ(unknown_fields(body, Route::kCompletions),
            (std::vector<std::string>{"messages", "temprature"}));
}

}  // namespace
}  // namespace lorry::serve

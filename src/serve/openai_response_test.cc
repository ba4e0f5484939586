#include "serve/openai_response.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace lorry::serve {
namespace {

Json parsed(std::string_view event) {
  constexpr std::string_view kHead = "data: ";
  return Json::parse(event.substr(kHead.size()));
}

AnswerHead head_of(bool chat) {
  AnswerHead head{"id", "m", 1, chat};
  head.usage = {3, 2};
  return head;
}

TEST(OpenAiResponse, TokenIdsStandInTheChoiceOrBesideTheChoices) {
  const std::vector<int32_t> ids = {7, 8};
  const std::string members = ids_member("token_ids", ids);
  const Json chunk = parsed(text_chunk(head_of(true), 0, "a", Json(), members));
  EXPECT_EQ(chunk["choices"][0]["token_ids"], ids);
  EXPECT_EQ(chunk["choices"][0]["delta"]["content"], "a");
  EXPECT_EQ(parsed(role_chunk(head_of(true), 0, members))["token_ids"], ids);
  EXPECT_EQ(parsed(finish_chunk(head_of(false), 1, "stop", members))["choices"][0]["token_ids"],
            ids);
  const Json whole = Json::parse(
      whole_answer(head_of(true), {{"a", {}, "stop", {}, members}}, ids_member("prompt_ids", {})));
  EXPECT_EQ(whole["choices"][0]["token_ids"], ids);
  EXPECT_EQ(whole["prompt_ids"], Json::array());
}

TEST(OpenAiResponse, UsageIsNullInEachChunkUnlessItIsToBeContinuous) {
  AnswerHead head = head_of(true);
  EXPECT_FALSE(parsed(text_chunk(head, 0, "a", Json())).contains("usage"));
  head.include_usage = true;
  EXPECT_TRUE(parsed(text_chunk(head, 0, "a", Json())).at("usage").is_null());
  head.continuous_usage = true;
  EXPECT_EQ(parsed(text_chunk(head, 0, "a", Json()))["usage"]["total_tokens"], 5);
  EXPECT_EQ(parsed(usage_chunk(head))["usage"]["completion_tokens"], 2);
  head.usage.cached_tokens = 1;
  EXPECT_EQ(parsed(usage_chunk(head))["usage"]["prompt_tokens_details"]["cached_tokens"], 1);
}

}  // namespace
}  // namespace lorry::serve

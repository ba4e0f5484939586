#include "chat/losses.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "chat/chat_template.h"

namespace lorry::chat {
namespace {

Json message(const char* role, const char* content) {
  return {{"role", role}, {"content", content}};
}

/// "reasoning of message 1: \"2 and\"", a line each.
std::string losses(const std::string& source, const Json& messages, const Json& tools = Json()) {
  const auto tmpl = *ChatTemplate::parse(source);
  const SpanRender render = [&](const Json& shown, bool) -> Result<std::string> {
    LORRY_ASSIGN(auto out, tmpl->render(Json{{"messages", shown}, {"tools", tools}}));
    return std::move(out.text);
  };
  const auto text = render(messages, false);
  if (!text.ok()) return text.error().message;
  std::string out;
  for (const auto& loss : find_losses(messages, tools, *text, render)) {
    out += std::string(name_of(loss.part)) + " " + std::to_string(loss.message) + ": " +
           loss.words + "\n";
  }
  return out;
}

constexpr char kContents[] =
    "{% for m in messages %}<{{ m.role }}>{{ m.content|trim }}</s>{% endfor %}";

TEST(Losses, NothingIsLostWhereEveryWordIsShown) {
  EXPECT_EQ(losses(kContents, Json::array({message("system", "Be brief."), message("user", " q\n"),
                                           message("assistant", "a")})),
            "");
}

TEST(Losses, ReasoningThatTheTemplateDoesNotKnowIsLost) {
  Json answer = message("assistant", "4");
  answer["reasoning_content"] = "2 and 2";
  EXPECT_EQ(losses(kContents, Json::array({message("user", "2+2?"), answer})),
            "reasoning 1: 2 and 2\n");
  EXPECT_EQ(losses("{% for m in messages %}{{ m.reasoning_content or '' }}|{{ m.content }}|"
                   "{% endfor %}",
                   Json::array({message("user", "2+2?"), answer})),
            "");
}

TEST(Losses, ThinkingOfEarlierAnswersIsToldApart) {
  constexpr char kLastOnly[] =
      "{% for m in messages %}{{ m.role }}: {{ m.content if loop.last else "
      "m.content.split('</think>')[-1] }}\n{% endfor %}";
  const Json messages = Json::array(
      {message("user", "2+2?"), message("assistant", "<think>\nadd\n</think>\n\n4"),
       message("user", "3+3?"), message("assistant", "<think>\nadd these\n</think>\n\n6")});
  EXPECT_EQ(losses(kLastOnly, messages), "reasoning of an earlier answer 1: add\n");
}

TEST(Losses, RolesThatTheTemplateSkipsAreLost) {
  constexpr char kTwoRoles[] =
      "{% for m in messages %}{% if m.role in ['user', 'assistant'] %}{{ m.content }}\n"
      "{% endif %}{% endfor %}";
  EXPECT_EQ(losses(kTwoRoles, Json::array({message("system", "S"), message("user", "sun?"),
                                           message("tool", "17 degrees and sun, later rain"),
                                           message("assistant", "Sunny")})),
            "a system message 0: S\na tool's result 2: 17 degrees and sun, later rain\n");
}

TEST(Losses, ShortWordsFoundByChanceAreLookedAtMoreClosely) {
  constexpr char kNoAnswers[] =
      "{% for m in messages %}{% if m.role != 'assistant' %}{{ m.content }}\n{% endif %}"
      "{% endfor %}";
  EXPECT_EQ(losses(kNoAnswers, Json::array({message("user", "q"), message("assistant", "4"),
                                            message("user", "And 4 more?"),
                                            message("assistant", "That makes eight in all.")})),
            "an answer 1: 4\nan answer 3: That makes eight in all.\n");
}

TEST(Losses, WordsThatTheTemplateWritesInAnotherWayAreShown) {
  constexpr char kOtherwise[] =
      "{% for m in messages %}{{ m.content|tojson if m.role == 'tool' else m.content|upper }}"
      "{% endfor %}";
  EXPECT_EQ(losses(kOtherwise,
                   Json::array({message("user", "a question"), message("tool", "{\"x\": 1}\n"),
                                message("assistant", "an answer")})),
            "");
}

TEST(Losses, WordsOfTheSystemMayStandInTheLastQuestion) {
  constexpr char kMistral[] =
      "{% for m in messages[1:] %}{% if m.role == 'user' %}[INST]{{ messages[0].content + ' ' "
      "if loop.index == messages|length - 2 else '' }}{{ m.content }}[/INST]{% else %}"
      "{{ m.content }}</s>{% endif %}{% endfor %}";
  EXPECT_EQ(losses(kMistral, Json::array({message("system", "S."), message("user", "first"),
                                          message("assistant", "one"), message("user", "second"),
                                          message("assistant", "two")})),
            "");
}

TEST(Losses, CallsWordsBesideThemAndToolsAreLost) {
  Json answer = message("assistant", "I look.");
  answer["tool_calls"] = Json::array(
      {{{"type", "function"}, {"function", {{"name", "f"}, {"arguments", {{"x", "Rome"}}}}}}});
  const Json tools = Json::array({{{"type", "function"}, {"function", {{"name", "find"}}}}});
  const Json messages = Json::array({message("user", "where is f?"), answer});
  EXPECT_EQ(losses(kContents, messages, tools), "a tool's definition 0: find\na tool call 1: f\n");
  constexpr char kCallOrWords[] =
      "{{ tools|tojson }}{% for m in messages %}{% if m.tool_calls is defined %}"
      "{{ m.tool_calls[0].function|tojson }}{% else %}{{ m.content }}{% endif %}{% endfor %}";
  EXPECT_EQ(losses(kCallOrWords, messages, tools), "words beside a tool call 1: I look.\n");
}

}  // namespace
}  // namespace lorry::chat

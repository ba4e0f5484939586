#include "chat/call_reader.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "chat/chat.h"

namespace lorry::chat {
namespace {

const CallForm kHermes{"<tool_call>", "</tool_call>", false};
const CallForm kLlama{"", "", true};

/// Content and calls ("name(arguments)") in order of kind, from pieces of `size` bytes.
std::pair<std::string, std::vector<std::string>> read(const CallForm& form, std::string_view text,
                                                      size_t size) {
  CallReader reader(form, {"add", "look"});
  std::pair<std::string, std::vector<std::string>> out;
  const auto take = [&](const CallReader::Piece& piece) {
    out.first += piece.content;
    for (const ToolCall& call : piece.calls)
      out.second.push_back(call.name + "(" + call.arguments + ")");
  };
  for (size_t at = 0; at < text.size(); at += size) take(reader.push(text.substr(at, size)));
  take(reader.finish());
  return out;
}

void expect(const CallForm& form, std::string_view text, const std::string& content,
            const std::vector<std::string>& calls) {
  for (const size_t size : {size_t{1}, size_t{3}, text.size()}) {
    const auto [got, got_calls] = read(form, text, size);
    EXPECT_EQ(got, content) << text << " by " << size;
    EXPECT_EQ(got_calls, calls) << text << " by " << size;
  }
}

TEST(CallReader, FindsCallsBetweenTheirMarks) {
  expect(kHermes, "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 2}}\n</tool_call>", "",
         {"add({\"a\": 2})"});
  expect(kHermes,
         "Let me see.\n<tool_call>{\"name\": \"add\", \"arguments\": {}}</tool_call>\n"
         "<tool_call>\n{\"name\": \"other\"}\n</tool_call>\n",
         "Let me see.", {"add({})", "other({})"});
  expect(kHermes, "a <tool_call>{\"name\": \"add\"}</tool_call> b", "a b", {"add({})"});
}

TEST(CallReader, MarksInsideArgumentsAreArguments) {
  expect(kHermes,
         R"(<tool_call>{"name": "add", "arguments": {"a": "}</tool_call>\"{"}}</tool_call>)", "",
         {R"(add({"a": "}</tool_call>\"{"}))"});
}

TEST(CallReader, WhatIsNoCallIsContentAsItStands) {
  for (const char* text :
       {"plain words, {\"name\": \"add\", \"arguments\": {}} and <tool", "a < b <tool_calls are",
        "<tool_call>{\"name\": \"add\", \"arg", "<tool_call>\nnot JSON\n</tool_call>",
        "<tool_call>{\"name\": 5}</tool_call>", "  \n two lines \n\n", "<tool_call>", ""}) {
    expect(kHermes, text, text, {});
  }
}

TEST(CallReader, BareJsonIsACallOfAToolThatIsThere) {
  expect(kLlama, R"({"name": "add", "parameters": {"a": 2}})", "", {R"(add({"a": 2}))"});
  expect(kLlama, R"({"type": "function", "name": "look", "parameters": {"q": "é"}})", "",
         {R"(look({"q": "é"}))"});
  expect(kLlama, R"({"name": "add", "parameters": {}}; {"name": "look", "parameters": {}})", "",
         {"add({})", "look({})"});
  expect(kLlama, R"(<|python_tag|>{"name": "add", "parameters": {}})", "", {"add({})"});
  expect(kLlama, R"([{"name": "add", "arguments": {"a": 1}}, {"name": "add", "arguments": "{}"}])",
         "", {R"(add({"a": 1}))", "add({})"});
  expect(kLlama, "I add them.\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}", "I add them.",
         {R"(add({"a": 1}))"});
}

TEST(CallReader, OtherBareJsonIsContent) {
  for (const char* text : {R"({"name": "Bob", "parameters": {}})", R"({"name": "add"})",
                           R"({"a": {"b": 1}} and more)", "{ x }\n{\n", "[1, 2]",
                           R"(so {"name": "add", "parameters": {}})", "{\"name\": \"add\", "}) {
    expect(kLlama, text, text, {});
  }
}

// ---- the form of a template
// ----------------------------------------------------------------------

std::optional<CallForm> form_of(const std::string& source) {
  const auto read = [](std::string_view name) -> Result<std::optional<std::string>> {
    std::ifstream file(std::string(LORRY_SOURCE_DIR "/examples/model/") + std::string(name));
    if (!file) return std::optional<std::string>();
    std::ostringstream text;
    text << file.rdbuf();
    return std::optional<std::string>(text.str());
  };
  const auto chat = Chat::load(read, source);
  EXPECT_TRUE(chat.ok()) << chat.error().message;
  return (*chat)->call_form();
}

const std::string kTools =
    "{%- if tools %}{%- for t in tools %}{{- t | tojson + '\\n' }}{%- endfor %}{%- endif %}";

/// A template of turns that writes calls as `calls` does.
std::string with_calls(const std::string& calls) {
  return kTools +
         "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}{%- if m.content %}"
         "{{- m.content }}{%- endif %}{%- if m.tool_calls %}" +
         calls +
         "{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}"
         "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";
}

const std::string kOne = "{{- '{\"name\": \"' + c.function.name + '\", ' }}";

TEST(CallForm, IsThatWhichTheTemplateWrites) {
  const auto hermes = form_of(with_calls(
      "{%- for c in m.tool_calls %}{{- '<tool_call>\\n' }}" + kOne +
      "{{- '\"arguments\": ' }}{{- c.function.arguments | tojson }}{{- '}\\n</tool_call>' }}"
      "{%- endfor %}"));
  ASSERT_TRUE(hermes);
  EXPECT_EQ(hermes->open, "<tool_call>");
  EXPECT_EQ(hermes->close, "</tool_call>");
  EXPECT_FALSE(hermes->bare);
  const auto llama = form_of(with_calls(
      "{%- if m.tool_calls | length != 1 %}{{- raise_exception('one call only') }}{%- endif %}"
      "{%- set c = m.tool_calls[0] %}" +
      kOne + "{{- '\"parameters\": ' }}{{- c.function.arguments | tojson }}{{- '}' }}"));
  ASSERT_TRUE(llama);
  EXPECT_TRUE(llama->open.empty() && llama->close.empty() && llama->bare);
  const auto mistral =
      form_of(with_calls("{{- '[TOOL_CALLS] [' }}{%- for c in m.tool_calls %}" + kOne +
                         "{{- '\"arguments\": ' }}{{- c.function.arguments | tojson }}{{- '}' }}"
                         "{%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}{{- ']' }}"));
  ASSERT_TRUE(mistral);
  EXPECT_EQ(mistral->open, "[TOOL_CALLS]");
  EXPECT_TRUE(mistral->close.empty());
}

TEST(CallForm, ATemplateThatShowsNoCallsHasThemInItsContent) {
  const auto form = form_of(with_calls(""));
  ASSERT_TRUE(form);
  EXPECT_TRUE(form->bare);
}

TEST(CallForm, IsUnknownWhereCallsAreNotJson) {
  EXPECT_FALSE(
      form_of(with_calls("{%- for c in m.tool_calls %}{{- '<function=' + c.function.name + '>' + "
                         "c.function.arguments.word + '</function>' }}{%- endfor %}")));
}

}  // namespace
}  // namespace lorry::chat

#include "chat/chat.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace lorry::chat {
namespace {

std::string rendered(const std::string& source, const Json& context = Json::object()) {
  const auto parsed = ChatTemplate::parse(source);
  if (!parsed.ok()) return "error: " + parsed.error().message;
  const auto out = (*parsed)->render(context);
  return out.ok() ? out->text : "error: " + out.error().message;
}

ReadFile example_model(std::string extra_name = {}, std::string extra = {}) {
  return [=](std::string_view name) -> Result<std::optional<std::string>> {
    if (name == extra_name) return std::optional<std::string>(extra);
    std::ifstream file(std::string(LORRY_SOURCE_DIR "/examples/model/") + std::string(name));
    if (!file) return std::optional<std::string>();
    std::ostringstream text;
    text << file.rdbuf();
    return std::optional<std::string>(text.str());
  };
}

std::shared_ptr<const Chat> load(const std::string& source = {}) {
  auto chat = Chat::load(example_model(), source);
  EXPECT_TRUE(chat.ok()) << chat.error().message;
  return *chat;
}

std::vector<std::string> learned(const Chat& chat, const Json& messages) {
  const auto example = chat.encode_example(messages, Json());
  if (!example.ok()) return {"error: " + example.error().message};
  std::vector<std::string> runs;
  std::vector<int32_t> run;
  for (size_t i = 0; i <= example->input_ids.size(); ++i) {
    if (i < example->input_ids.size() && example->assistant_masks[i] != 0) {
      run.push_back(example->input_ids[i]);
    } else if (!run.empty()) {
      runs.push_back(chat.tokenizer()->decode(run, false));
      run.clear();
    }
  }
  return runs;
}

Json message(const char* role, const char* content) {
  return {{"role", role}, {"content", content}};
}

using Strings = std::vector<std::string>;

TEST(ChatTemplate, BlocksTrimTheirLines) {
  EXPECT_EQ(rendered("a\n  {% if true %}\n b\n  {% endif %}\n{# c #}\nd\n"), "a\n b\nd");
}

TEST(ChatTemplate, ValuesPrintAsPythonDoes) {
  EXPECT_EQ(rendered("{{ [1, 1.0, 1e16, true, none, 'it\\'s'] }}"),
            "[1, 1.0, 1e+16, True, None, \"it's\"]");
  EXPECT_EQ(rendered("{{ x|tojson }}", {{"x", {{"é", 0.1}, {"b", nullptr}}}}),
            "{\"é\": 0.1, \"b\": null}");
}

TEST(ChatTemplate, ALoopKeepsItsAssignmentsToItself) {
  EXPECT_EQ(rendered("{% set x = 1 %}{% set ns = namespace(x=1) %}{% for i in range(3) %}"
                     "{% set x = x + 1 %}{% set ns.x = ns.x + 1 %}{% endfor %}{{ x }}{{ ns.x }}"),
            "14");
}

TEST(ChatTemplate, AnErrorNamesLineAndReason) {
  EXPECT_EQ(rendered("a\n{{ raise_exception('no system role') }}"),
            "error: chat template, line 2: no system role");
  EXPECT_EQ(rendered("\n\n{{ x.y }}"), "error: chat template, line 3: 'x' is undefined");
  EXPECT_EQ(rendered("{% include 'x' %}"),
            "error: chat template, line 1: '{% include %}' is not for chat templates: there is no "
            "other file");
}

TEST(ChatTemplate, ListsCannotBeChanged) {
  EXPECT_NE(rendered("{{ [1].append(2) }}").find("unsafe"), std::string::npos);
}

TEST(ChatTemplate, WorkIsBounded) {
  for (const char* source :
       {"{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 99999999999 }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"}) {
    EXPECT_EQ(rendered(source).substr(0, 6), "error:") << source;
  }
  EXPECT_EQ(rendered("{{ " + std::string(100000, '(')).substr(0, 6), "error:");
}

TEST(ChatTemplate, ValuesThatHoldEachOtherAreFreed) {
  EXPECT_EQ(rendered("{% set a = namespace() %}{% set a.a = a %}{% macro f() %}{% macro g() %}x"
                     "{% endmacro %}{% set a.g = g %}{{ g() }}{% endmacro %}{{ f() }}{{ a.g() }}"),
            "xx");
}

TEST(Chat, RendersAndEncodesWithoutASecondBos) {
  const auto chat = load();
  const Json messages = Json::array({message("user", "Hi")});
  const auto text = chat->render(messages, Json(), true, Json());
  ASSERT_TRUE(text.ok());
  EXPECT_TRUE(text->ends_with("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"));
  EXPECT_EQ(*chat->encode_prompt(messages, Json(), Json()),
            chat->tokenizer()->encode(*text, false));
}

TEST(Chat, TheMaskCoversReplyAndEndTokenOfEachTurn) {
  const Json messages = Json::array({message("system", "S"), message("user", "a <|im_end|> b"),
                                     message("assistant", "One."), message("user", "more"),
                                     message("assistant", "")});
  EXPECT_EQ(learned(*load(), messages), (Strings{"One.<|im_end|>", "<|im_end|>"}));
}

TEST(Chat, MasksTemplatesThatRefuseHalfConversations) {
  const auto chat = load(
      "{% if messages|length < 2 %}{{ raise_exception('no') }}{% endif %}{% for m in messages %}"
      "{{ '<|im_start|>' + m.role + '\n' + m.content }}{% if loop.last %}<|im_end|>{% endif %}"
      "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
  EXPECT_EQ(learned(*chat, Json::array({message("user", "q"), message("assistant", "reply")})),
            (Strings{"reply<|im_end|>"}));
}

TEST(Chat, OfTwoClosingTokensTheEosEndsTheTurn) {
  const auto chat = load(
      "{% for m in messages %}{{ m.role + ':' + ' ' + m.content + '<|endoftext|><|im_end|>\n' }}"
      "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}");
  EXPECT_EQ(learned(*chat, Json::array({message("user", "q"), message("assistant", "reply")})),
            (Strings{" reply<|endoftext|><|im_end|>"}));
}

TEST(Chat, AnAssistantMayOpenOrSpeakTwice) {
  const Json messages = Json::array({message("assistant", "first"), message("user", "q"),
                                     message("assistant", "b"), message("assistant", "c")});
  EXPECT_EQ(learned(*load(), messages), (Strings{"first<|im_end|>", "b<|im_end|>", "c<|im_end|>"}));
}

TEST(Chat, FoldsCallsIntoTheContentWhereTheTemplateKnowsNone) {
  Json call = {{"role", "assistant"}, {"content", nullptr}};
  call["tool_calls"] = Json::array({{{"function", {{"name", "f"}, {"arguments", "{\"x\": 1}"}}}}});
  const Json messages = Json::array({message("user", "q"), call});
  const auto text = load()->render(messages, Json(), false, Json(), Adapt::kWhereItFails);
  ASSERT_TRUE(text.ok()) << text.error().message;
  EXPECT_NE(text->find("{\"name\": \"f\", \"arguments\": {\"x\": 1}}<|im_end|>"),
            std::string::npos);
  EXPECT_EQ(learned(*load(), messages),
            Strings{"{\"name\": \"f\", \"arguments\": {\"x\": 1}}<|im_end|>"});
}

TEST(Chat, CallsThatATemplateLeavesOutAreShownAllTheSame) {
  const auto call = [](const char* content) {
    Json out = message("assistant", content);
    out["tool_calls"] =
        Json::array({{{"function", {{"name", "f"}, {"arguments", {{"city", "Zürich \"x\""}}}}}}});
    return out;
  };
  // As DeepSeek R1's: calls where the content is none, and only there.
  const auto none_only = load(
      "{% for m in messages %}{% if m.role == 'assistant' and m['content'] is none %}"
      "{% for c in m.tool_calls %}<call>{{ c.function.name + c.function.arguments|tojson }}</call>"
      "{% endfor %}{% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}");
  const auto text = [](const Chat& chat, const Json& message) {
    const Json messages = Json::array({{{"role", "user"}, {"content", "f?"}}, message});
    return *chat.render(messages, Json(), false, Json(), Adapt::kWhereItFails);
  };
  constexpr char kArguments[] = "{\"city\": \"Zürich \\\"x\\\"\"}";
  EXPECT_EQ(text(*none_only, call("")),
            std::string("f?<|im_end|><call>f") + kArguments + "</call><|im_end|>");
  const std::string line = std::string("{\"name\": \"f\", \"arguments\": ") + kArguments + "}";
  EXPECT_EQ(text(*none_only, call("I look.")), "f?<|im_end|>I look.\n" + line + "<|im_end|>");
  const auto never = load("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}");
  EXPECT_EQ(text(*never, call("")), "f?<|im_end|>" + line + "<|im_end|>");
  const Json messages = Json::array({message("user", "f?"), call("")});
  EXPECT_EQ(*never->render(messages, Json(), false, Json()), "f?<|im_end|><|im_end|>");
}

TEST(Chat, JoinsPartsWhereTheTemplateTakesText) {
  Json parts = {{"role", "user"}};
  parts["content"] =
      Json::array({{{"type", "text"}, {"text", "a"}}, {{"type", "text"}, {"value", "b"}}});
  const Json messages = Json::array({parts});
  const auto text = load()->render(messages, Json(), false, Json(), Adapt::kWhereItFails);
  ASSERT_TRUE(text.ok()) << text.error().message;
  EXPECT_NE(text->find("user\nab<|im_end|>"), std::string::npos);
}

TEST(Chat, AdaptsNothingUnlessAskedTo) {
  const Json part = {{"type", "text"}, {"text", "a"}};
  const Json messages = Json::array({{{"role", "user"}, {"content", Json::array({part})}}});
  EXPECT_EQ(load()->render(messages, Json(), false, Json()).error().message,
            "chat template, line 1: can only concatenate str (not \"list\") to str");
}

TEST(Chat, WhatIsTrainedAndServedHoldsThePartsTextWhereTheTemplateWouldPrintTheList) {
  const auto chat = load("{% for m in messages %}{{ m.role }}: {{ m.content }};{% endfor %}");
  const Json part = {{"type", "text"}, {"text", "a"}};
  const Json messages = Json::array({{{"role", "user"}, {"content", Json::array({part})}}});
  EXPECT_EQ(*chat->render(messages, Json(), false, Json()),
            "user: [{'type': 'text', 'text': 'a'}];");
  EXPECT_EQ(chat->encode_example(messages, Json())->text, "user: a;");
  EXPECT_EQ(chat->tokenizer()->decode(*chat->encode_prompt(messages, Json(), Json()), false),
            "user: a;");
}

TEST(Chat, RefusesATemplateThatIsNotUtf8AndTakesWordsThatAreNot) {
  const auto broken = ChatTemplate::parse("a\n{{ 'b\xFF'[1] }}");
  ASSERT_FALSE(broken.ok());
  EXPECT_EQ(broken.error().message, "chat template, line 2: not UTF-8 text");
  const auto whole = ChatTemplate::parse("{{ s[1] }}{{ s[0] }}{{ s|list|join('-') }}");
  ASSERT_TRUE(whole.ok());
  EXPECT_EQ((*whole)->render(Json{{"s", "a\xFF"}})->text,
            "\xFF"
            "aa-\xFF");
}

TEST(Chat, ChoosesTheToolTemplateWhenToolsAreGiven) {
  const std::string config = R"({"chat_template": [{"name": "default", "template": "plain"},
                                {"name": "tool_use", "template": "tools"}]})";
  const auto read = [&](std::string_view name) -> Result<std::optional<std::string>> {
    if (name == "tokenizer_config.json") return std::optional<std::string>(config);
    if (name == "chat_template.jinja") return std::optional<std::string>();
    return example_model()(name);
  };
  const auto chat = Chat::load(read);
  ASSERT_TRUE(chat.ok()) << chat.error().message;
  const Json messages = Json::array({message("user", "q")});
  EXPECT_EQ(*(*chat)->render(messages, Json(), false, Json()), "plain");
  EXPECT_EQ(*(*chat)->render(messages, Json::array(), false, Json()), "tools");
}

ReadFile model_with_templates() {
  const std::string config = R"({"chat_template": [{"name": "default", "template": "plain"},
                                {"name": "tool_use", "template": "tools"},
                                {"name": "rag", "template": "rag"}]})";
  return [=](std::string_view name) -> Result<std::optional<std::string>> {
    if (name == "tokenizer_config.json") return std::optional<std::string>(config);
    if (name == "chat_template.jinja") return std::optional<std::string>();
    return example_model()(name);
  };
}

TEST(Chat, ATemplateIsChosenByItsName) {
  const Json messages = Json::array({message("user", "q")});
  const auto chat = Chat::load(model_with_templates(), {}, {.name = "rag"});
  ASSERT_TRUE(chat.ok()) << chat.error().message;
  EXPECT_EQ(*(*chat)->render(messages, Json::array(), false, Json()), "rag");
  const auto in_file = Chat::load(example_model("additional_chat_templates/short.jinja", "short"),
                                  {}, {.name = "short"});
  ASSERT_TRUE(in_file.ok()) << in_file.error().message;
  EXPECT_EQ(*(*in_file)->render(messages, Json(), false, Json()), "short");
  EXPECT_EQ(Chat::load(model_with_templates(), {}, {.name = "rat"}).error().message,
            "the model has no chat template of the name rat; it has default, rag, tool_use");
  EXPECT_FALSE(Chat::load(model_with_templates(), {}, {.name = "../rag"}).ok());
}

constexpr char kNoSystem[] =
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not "
    "supported') }}{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

TEST(Chat, WhatTheSystemSaysGoesBeforeTheNextUserMessage) {
  const Json messages = Json::array({message("system", "Be brief."), message("user", "q"),
                                     message("assistant", "a"), message("developer", "In French."),
                                     message("user", "r"), message("assistant", "b")});
  const auto chat = *Chat::load(example_model(), kNoSystem, {.system_as_user = true});
  const auto example = *chat->encode_example(messages, Json(), {}, std::vector<size_t>{2});
  EXPECT_EQ(example.text,
            "<|im_start|>user\nBe brief.\n\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
            "<|im_start|>user\nIn French.\n\nr<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n");
  EXPECT_TRUE(example.losses.empty());
  std::vector<int32_t> ids;
  for (size_t i = 0; i < example.input_ids.size(); ++i) {
    if (example.assistant_masks[i]) ids.push_back(example.input_ids[i]);
  }
  EXPECT_EQ(chat->tokenizer()->decode(ids, false), "b<|im_end|>");
  const Json asked = Json::array({message("system", "S"), message("user", "q")});
  EXPECT_EQ(chat->tokenizer()->decode(*chat->encode_prompt(asked, Json(), Json()), false),
            "<|im_start|>user\nS\n\nq<|im_end|>\n<|im_start|>assistant\n");
}

TEST(Chat, ARefusedSystemMessageNamesTheFlagThatHelps) {
  const Json system = message("system", "S"), user = message("user", "q");
  const auto chat = load(kNoSystem);
  EXPECT_EQ(chat->encode_example(Json::array({system, user, message("assistant", "a")}), Json())
                .error()
                .message,
            "chat template, line 1: System role not supported; --system-as-user puts what the "
            "system says before the next user message");
  const auto refuses = load("{{ raise_exception('no') }}");
  EXPECT_EQ(refuses->encode_example(Json::array({system, user}), Json()).error().message,
            "chat template, line 1: no");
}

TEST(Chat, VariablesOfTheSettingsHoldUntilARequestSetsThem) {
  const auto chat = *Chat::load(example_model(), "{{ enable_thinking }} {{ other }}",
                                {.variables = {{"enable_thinking", false}, {"other", 1}}});
  const Json messages = Json::array({message("user", "q"), message("assistant", "a")});
  EXPECT_EQ(chat->encode_example(messages, Json())->text, "False 1");
  EXPECT_EQ(*chat->render(messages, Json(), false, {{"enable_thinking", true}}), "True 1");
}

TEST(Chat, TheDayOfTheSettingsIsTheDayThatTheTemplateWrites) {
  const auto chat =
      *Chat::load(example_model(), "{{ strftime_now('%d %b %Y, %A %j') }}", {.date = "2024-02-29"});
  EXPECT_TRUE(chat->uses_date());
  EXPECT_FALSE(load()->uses_date());
  EXPECT_EQ(*chat->render(Json::array({message("user", "q")}), Json(), false, Json()),
            "29 Feb 2024, Thursday 060");
  EXPECT_TRUE(check_date("2024-02-29").ok() && check_date("").ok());
  for (const char* wrong : {"2025-02-29", "2025-1-31", "today", "2025-01-31T00", "+025-01-31"})
    EXPECT_FALSE(check_date(wrong).ok()) << wrong;
}

TEST(Chat, CallsGetIdsThatTheTemplateTakes) {
  const auto chat = load(
      "{% for m in messages %}{% for c in m.tool_calls or [] %}{% if c.id is undefined or "
      "c.id|length != 9 %}{{ raise_exception('nine') }}{% endif %}[{{ c.function.name }} "
      "{{ c.function.arguments|tojson }} {{ c.id }}]{% endfor %}{% if m.role == 'tool' %}"
      "{% if m.tool_call_id is undefined or m.tool_call_id|length != 9 %}"
      "{{ raise_exception('nine') }}{% endif %}[{{ m.tool_call_id }} {{ m.content }}]"
      "{% elif m.content %}{{ m.content }}{% endif %}</s>{% endfor %}");
  const auto conversation = [](const Json& first, const Json& second) {
    Json call = {{"type", "function"}, {"function", {{"name", "f"}, {"arguments", {{"x", 1}}}}}};
    Json calls = message("assistant", "");
    for (const Json& id : {first, second}) {
      if (!id.is_null()) call["id"] = id;
      calls["tool_calls"].push_back(call);
    }
    Json out = Json::array({message("user", "q"), calls, message("tool", "one"),
                            message("tool", "two"), message("assistant", "a")});
    if (!first.is_null()) out[2]["tool_call_id"] = first;
    if (!second.is_null()) out[3]["tool_call_id"] = second;
    return out;
  };
  const auto text = [&](const Json& messages) {
    const auto example = chat->encode_example(messages, Json());
    EXPECT_TRUE(example.ok() && example->changes_call_ids);
    EXPECT_TRUE(example->losses.empty());
    return example.ok() ? example->text : example.error().message;
  };
  for (const auto& messages :
       {conversation("call_12345", "call_56789"), conversation(nullptr, nullptr)}) {
    const std::string shown = text(messages);
    const size_t first = shown.find("} ") + 2, second = shown.find("} ", first) + 2;
    const std::string one = shown.substr(first, 9), two = shown.substr(second, 9);
    EXPECT_NE(one, two);
    EXPECT_EQ(shown, "q</s>[f {\"x\": 1} " + one + "][f {\"x\": 1} " + two + "]</s>[" + one +
                         " one]</s>[" + two + " two]</s>a</s>");
    EXPECT_EQ(text(messages), shown) << "the same every time";
  }
  const auto fitting = chat->encode_example(conversation("abcdefghi", "012345678"), Json());
  EXPECT_FALSE(fitting->changes_call_ids);
}

TEST(Chat, AnswersThatAreContextAreNotTrainedOn) {
  constexpr char kBlocks[] =
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
      "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{% else %}"
      "{{ m.content + '<|im_end|>' }}{% endif %}{% endfor %}";
  const Json messages = Json::array({message("user", "q"), message("assistant", "bad"),
                                     message("user", "r"), message("assistant", "good")});
  const std::vector<size_t> first = {1}, both = {1, 3};
  for (const char* source : {"", kBlocks}) {
    const auto chat = load(source);
    const auto trained = [&](TrainOn train_on, const std::vector<size_t>& context) {
      const auto row = *chat->encode_example(messages, Json(), {.train_on = train_on}, context);
      std::vector<int32_t> ids;
      for (size_t i = 0; i < row.input_ids.size(); ++i) {
        if (row.assistant_masks[i]) ids.push_back(row.input_ids[i]);
      }
      return chat->tokenizer()->decode(ids, false);
    };
    EXPECT_EQ(trained(TrainOn::kAssistant, first), "good<|im_end|>");
    EXPECT_EQ(trained(TrainOn::kLast, first), "good<|im_end|>");
    EXPECT_EQ(trained(TrainOn::kAssistant, both), "");
    const std::string all = trained(TrainOn::kAll, first);
    EXPECT_EQ(all.find("bad"), std::string::npos) << all;
    EXPECT_NE(all.find("good"), std::string::npos) << all;
    const auto none = *chat->encode_example(messages, Json(), {}, both);
    EXPECT_EQ(none.no_target, NoTarget::kContext);
  }
}

TEST(Chat, WhetherAnEndTokenIsTrainedOnIsKnown) {
  const Json messages = Json::array({message("user", "q"), message("assistant", "a")});
  EXPECT_TRUE(load()->encode_example(messages, Json())->trains_end);
  const auto chat = load(
      "{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n\n{% endfor %}"
      "{% if add_generation_prompt %}### assistant\n{% endif %}");
  const auto example = *chat->encode_example(messages, Json());
  EXPECT_EQ(example.no_target, NoTarget::kNone);
  EXPECT_FALSE(example.trains_end);
  EXPECT_TRUE(chat->encode_text("plain").trains_end);
}

TEST(Chat, TheLastTurnOrTheWholeTextCanBeLearned) {
  const auto chat = load();
  const Json messages = Json::array({message("user", "q"), message("assistant", "first"),
                                     message("user", "r"), message("assistant", "second")});
  EXPECT_EQ(learned(*chat, messages), (Strings{"first<|im_end|>", "second<|im_end|>"}));
  const auto all = *chat->encode_example(messages, Json(), {.train_on = TrainOn::kAll});
  EXPECT_EQ(all.assistant_masks, std::vector<int8_t>(all.input_ids.size(), 1));
  const auto last = *chat->encode_example(messages, Json(), {.train_on = TrainOn::kLast});
  std::vector<int32_t> ids;
  for (size_t i = 0; i < last.input_ids.size(); ++i) {
    if (last.assistant_masks[i]) ids.push_back(last.input_ids[i]);
  }
  EXPECT_EQ(chat->tokenizer()->decode(ids, false), "second<|im_end|>");
}

TEST(Chat, BadMessagesAreNamed) {
  const auto chat = load();
  EXPECT_EQ(chat->render(Json::array(), Json(), false, Json()).error().message,
            "messages: the conversation is empty");
  EXPECT_EQ(chat->render(Json::array({1}), Json(), false, Json()).error().message,
            "messages[0]: expected an object with role and content");
}

TEST(Chat, TextInPartsIsTokenizedPartByPartWithNothingAdded) {
  const auto chat = load();
  const std::vector<Segment> parts = {
      {"to be ", false}, {"or not", true}, {"", true}, {" to", false}};
  const auto example = chat->encode_segments(parts, {.with_offsets = true});
  EXPECT_EQ(example.text, "to be or not to");
  std::vector<int32_t> ids;
  std::vector<int8_t> mask;
  for (const Segment& part : parts) {
    const auto own = chat->tokenizer()->encode(part.text, false);
    ids.insert(ids.end(), own.begin(), own.end());
    mask.resize(ids.size(), part.is_learned ? 1 : 0);
  }
  EXPECT_EQ(example.input_ids, ids);
  EXPECT_EQ(example.assistant_masks, mask);
  EXPECT_EQ(example.offsets.back().second, example.text.size());
  EXPECT_FALSE(example.trains_end);
  EXPECT_EQ(example.no_target, NoTarget::kNone);
  EXPECT_EQ(chat->encode_segments(std::span(parts).first(1)).no_target, NoTarget::kContext);
}

TEST(Chat, PlainTextIsLearnedWholeAndEnds) {
  const auto chat = load();
  const auto example = chat->encode_text("some text");
  EXPECT_EQ(example.input_ids.back(), *chat->tokenizer()->eos_id());
  EXPECT_EQ(example.assistant_masks, std::vector<int8_t>(example.input_ids.size(), 1));
}

}  // namespace
}  // namespace lorry::chat

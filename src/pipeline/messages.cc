#include "pipeline/messages.h"

#include <fmt/format.h>

#include "store/layout.h"

namespace lorry::pipeline {
namespace {

/// A field that is stored as a JSON string; other values are taken as they are.
Result<Json> stored_json(const Json& value, std::string_view what) {
  if (!value.is_string()) return value;
  const auto& text = value.get_ref<const std::string&>();
  if (text.empty()) return Json(nullptr);
  return parse_json(text, what);
}

Result<Json> message_from(const Json& stored) {
  Json message = Json::object();
  for (const auto& [name, value] : stored.items()) {
    if (value.is_null()) continue;
    if (name == "tool_calls") {
      LORRY_ASSIGN(Json calls, stored_json(value, "tool_calls"));
      if (!calls.is_null() && !calls.empty()) message[name] = std::move(calls);
    } else {
      message[name] = value;
    }
  }
  if (!message.contains("role")) return invalid_input("a message has no role");
  if (!message.contains("content")) {
    if (!message.contains("tool_calls"))
      return invalid_input(
          fmt::format("a message of {} has no content", dump_json(message["role"])));
    // In its usual place, behind the role: templates may print whole messages.
    Json ordered = Json::object();
    for (auto& [name, value] : message.items()) {
      ordered[name] = std::move(value);
      if (name == "role") ordered["content"] = nullptr;
    }
    return ordered;
  }
  return message;
}

}  // namespace

Result<Example> example_from_row(const Json& row) {
  Example example;
  if (const auto conversations = row.find("conversations"); conversations != row.end()) {
    if (!conversations->is_array()) return invalid_input("`conversations` is not a list");
    example.messages = Json::array();
    for (const auto& stored : *conversations) {
      LORRY_ASSIGN(Json message, message_from(stored));
      example.messages.push_back(std::move(message));
    }
    if (const auto tools = row.find("tools"); tools != row.end()) {
      LORRY_ASSIGN(example.tools, stored_json(*tools, "tools"));
      if (example.tools.is_array() && example.tools.empty()) example.tools = nullptr;
    }
    return example;
  }
  const auto text = row.find("text");
  if (text == row.end() || !text->is_string())
    return invalid_input("the row has neither `conversations` nor `text`");
  example.text = text->get<std::string>();
  example.is_text = true;
  return example;
}

Result<text::EncodedExample> encode(const text::Chat& chat, const Example& example) {
  if (!example.is_text) return chat.encode_example(example.messages, example.tools);
  auto encoded = chat.encode_text(example.text);
  if (encoded.text.empty()) encoded.text = example.text;
  return encoded;
}

Result<std::shared_ptr<const text::Chat>> load_chat(const store::Bucket& bucket,
                                                    const std::string& model) {
  const std::string dir = store::model_dir(model);
  const auto read = [&](std::string_view name) -> Result<std::optional<std::string>> {
    const std::string path = store::join_path(dir, name);
    LORRY_ASSIGN(const bool there, bucket.exists(path));
    if (!there) return std::optional<std::string>();
    LORRY_ASSIGN(auto text, bucket.read(path));
    return std::optional<std::string>(std::move(text));
  };
  return text::Chat::load(read).with_context(dir);
}

}  // namespace lorry::pipeline

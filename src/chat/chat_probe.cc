// Renders and encodes what standard input asks for, one JSON object a line, for tests/test_chat.py:
//   {"template": source, "context": {...}}                      -> {"text"} or {"error"}
//   {"model_dir": dir, "messages", "tools"?, "extra"?, "add_generation_prompt"?}
//                                                               -> {"text", "prompt_ids"}
//   {"model_dir": dir, "messages", "tools"?, "example": true}   -> {"text", "ids", "mask"}
// "template" beside "model_dir" replaces the model's.
#include <fmt/format.h>

#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "chat/chat.h"

namespace lorry::chat {
namespace {

Json failure(const Error& error) { return Json{{"error", error.message}}; }

ReadFile directory_reader(const std::string& dir) {
  return [dir](std::string_view name) -> Result<std::optional<std::string>> {
    std::ifstream file(dir + "/" + std::string(name), std::ios::binary);
    if (!file) return std::optional<std::string>();
    std::ostringstream text;
    text << file.rdbuf();
    return std::optional<std::string>(text.str());
  };
}

Json render_template(const Json& request) {
  static std::map<std::string, Result<std::shared_ptr<const ChatTemplate>>> parsed;
  const std::string source = request["template"];
  auto it = parsed.find(source);
  if (it == parsed.end()) it = parsed.emplace(source, ChatTemplate::parse(source)).first;
  if (!it->second.ok()) return failure(it->second.error());
  const auto rendered = it->second.value()->render(request["context"]);
  if (!rendered.ok()) return failure(rendered.error());
  Json out{{"text", rendered->text}};
  for (const auto& [begin, end] : rendered->generation) {
    out["generation"].push_back(Json::array({begin, end}));
  }
  return out;
}

Json use_model(const Json& request) {
  static std::map<std::string, Result<std::shared_ptr<const Chat>>> loaded;
  const std::string dir = request["model_dir"];
  const std::string source = request.value("template", "");
  const std::string key = dir + "\n" + source;
  auto it = loaded.find(key);
  if (it == loaded.end()) it = loaded.emplace(key, Chat::load(directory_reader(dir), source)).first;
  if (!it->second.ok()) return failure(it->second.error());
  const Chat& chat = *it->second.value();
  const Json tools = request.value("tools", Json());
  const Json extra = request.value("extra", Json());
  if (request.value("example", false)) {
    const auto example = chat.encode_example(request["messages"], tools);
    if (!example.ok()) return failure(example.error());
    return {{"text", example->text},
            {"ids", example->input_ids},
            {"mask", example->assistant_masks},
            {"trains_end", example->trains_end}};
  }
  const auto text =
      chat.render(request["messages"], tools, request.value("add_generation_prompt", false), extra);
  if (!text.ok()) return failure(text.error());
  const auto ids = chat.encode_prompt(request["messages"], tools, extra);
  Json out{{"text", *text}};
  if (ids.ok()) out["prompt_ids"] = *ids;
  return out;
}

Json answer(const std::string& line) {
  const auto request = parse_json(line, "request");
  if (!request.ok()) return failure(request.error());
  return request->contains("model_dir") ? use_model(*request) : render_template(*request);
}

}  // namespace
}  // namespace lorry::chat

int main() {
  std::ios::sync_with_stdio(false);
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << lorry::dump_json(lorry::chat::answer(line)) << '\n' << std::flush;
  }
  return 0;
}

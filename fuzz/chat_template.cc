// Any bytes as a template, rendered over a conversation.
#include <nlohmann/json.hpp>

#include "chat/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const lorry::Json context = lorry::Json::parse(R"({"messages": [
      {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Gr\u00fc\u00dfe  "},
      {"role": "assistant", "content": null, "tool_calls": [{"name": "f", "arguments": {"x": 1.5}}]},
      {"role": "user", "content": [{"type": "text", "text": "a\nb"}]}],
      "tools": null, "add_generation_prompt": true, "bos_token": "<s>", "n": 3})");
  auto parsed =
      lorry::chat::ChatTemplate::parse(std::string(reinterpret_cast<const char*>(data), size));
  if (parsed.ok()) (void)(*parsed)->render(context);
  return 0;
}

#include "generate/stop_ids.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

namespace lorry::generate {
namespace {

void add_once(std::vector<int32_t>& ids, int64_t id) {
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(static_cast<int32_t>(id));
}

std::optional<int32_t> end_of_turn(const chat::Chat& chat) {
  if (!chat.has_template()) return std::nullopt;
  const Json messages = Json::array(
      {{{"role", "user"}, {"content", "a"}}, {{"role", "assistant"}, {"content", "b"}}});
  const auto example = chat.encode_example(messages, Json());
  if (!example.ok()) return std::nullopt;
  for (size_t i = example->input_ids.size(); i-- > 0;) {
    if (!example->assistant_masks[i]) continue;
    const int32_t id = example->input_ids[i];
    return chat.tokenizer()->is_special(id) ? std::optional(id) : std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

std::vector<int32_t> text_stop_ids(const std::vector<int64_t>& eos_token_ids,
                                   const chat::Chat& chat) {
  std::vector<int32_t> ids;
  for (const int64_t id : eos_token_ids) add_once(ids, id);
  if (const auto id = chat.tokenizer()->eos_id()) add_once(ids, *id);
  return ids;
}

std::vector<int32_t> chat_stop_ids(const std::vector<int64_t>& eos_token_ids,
                                   const chat::Chat& chat) {
  std::vector<int32_t> ids = text_stop_ids(eos_token_ids, chat);
  if (const auto id = end_of_turn(chat)) add_once(ids, *id);
  return ids;
}

}  // namespace lorry::generate

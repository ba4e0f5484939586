// Which tokens end an answer.
#pragma once

#include <cstdint>
#include <vector>

#include "chat/chat.h"

namespace lorry::generate {

/// Ends of any text: the model's (`eos_token_ids` of its configuration), then the tokenizer's.
std::vector<int32_t> text_stop_ids(const std::vector<int64_t>& eos_token_ids,
                                   const chat::Chat& chat);

/// Ends of an answer in a conversation: those of any text, and the special token that ends an
/// assistant's turn in the template, as training masks it. Models that were trained from a base
/// checkpoint end with it though their configuration knows only the end of text.
std::vector<int32_t> chat_stop_ids(const std::vector<int64_t>& eos_token_ids,
                                   const chat::Chat& chat);

}  // namespace lorry::generate

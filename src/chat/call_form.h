// How a model writes its tool calls into an answer, as its chat template shows them.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "tokenizer/tokenizer.h"

namespace lorry::chat {

/// Each call is a JSON object with "name" and "arguments" or "parameters"; so is each member where
/// calls are written as one list.
struct CallForm {
  std::string open,
      close;          ///< what stands before and after a call, or a list of them; may be empty
  bool bare = false;  ///< JSON alone is a call: in Llama 3.x; where calls are part of the text
};

/// Renders messages with tools; the last argument: add_generation_prompt.
using CallRender = std::function<Result<std::string>(const Json&, const Json&, bool)>;

/// Found by rendering a conversation that calls. nullopt where the template writes calls in another
/// form than JSON, or fails.
std::optional<CallForm> find_call_form(const CallRender& render);

/// Whether the template writes the definitions of tools; true where it fails.
bool shows_tools(const CallRender& render);

/// The form in text that leaves special tokens out, if that is `skipped`.
CallForm without_special_tokens(CallForm form, const tokenizer::Tokenizer& tokenizer, bool skipped);

/// Where the JSON object or array that begins at `begin` ends; npos if it does not. Brackets and
/// strings alone are looked at.
size_t end_of_json(std::string_view text, size_t begin);

}  // namespace lorry::chat

// Calls of tools and their definitions, as templates take them, from the forms that data sets have.
#pragma once

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/result.h"

namespace lorry::data {

/// A list of {"id", "type": "function", "function": {"name", "arguments": object}}, from one call
/// or several, as objects or JSON strings: OpenAI's form; {"name", "arguments"} as Hermes, xLAM and
/// LLaMA-Factory write it; arguments under `args` (LangChain), `input` (Anthropic's tool_use) or
/// `parameters`; Gemini's {"functionCall": ...}. Null if it is no call at all (text, another
/// object). Fails with invalid input if it is one that cannot be read: arguments that are no JSON
/// object, or under a key that is not known.
Result<Json> tool_calls(const Json& given);

/// A list of {"type": "function", "function": {"name", "description", "parameters"}}, from one
/// definition or several: OpenAI's form, the bare function, Anthropic's (`input_schema`), Gemini's
/// (`functionDeclarations`). An empty list for none. Fails with invalid input for anything else,
/// naming which.
Result<Json> tool_definitions(const Json& given);

}  // namespace lorry::data

#include "serve/request_fields.h"

#include <algorithm>
#include <iterator>

namespace lorry::serve {
namespace {

enum class Treatment {
  kRead,      // by parse_chat_request or parse_completion_request, which check its value
  kRefused,   // it would change the answer: 400, unless it asks for nothing
  kHarmless,  // it cannot change the answer, whatever its value
};
using enum Treatment;

enum Routes : unsigned { kChat = 1, kCompletions = 2, kBoth = 3 };

struct FieldRule {
  const char* name;
  Treatment treatment;
  Routes routes = kBoth;
  /// Values of a refused field that ask for what this server does anyway, as JSON, with spaces
  /// between them.
  const char* allowed = "";
};

// Sources: the OpenAI API reference (chat, completions); vLLM, entrypoints/openai, protocol; what
// constrains answers in SGLang and llama.cpp.
constexpr FieldRule kFields[] = {
    // What to answer.
    {"model", kRead},
    {"messages", kRead, kChat},
    {"prompt", kRead, kCompletions},
    {"prompt_embeds", kRefused, kCompletions},
    {"suffix", kRefused, kCompletions},
    {"echo", kRead, kCompletions},
    {"echo", kRefused, kChat},
    {"audio", kRefused, kChat},
    {"modalities", kRefused, kChat, R"(["text"])"},
    {"mm_processor_kwargs", kRefused},
    {"media_io_kwargs", kRefused},
    {"truncate_prompt_tokens", kRefused},
    {"truncation_side", kHarmless},  // of no effect without truncate_prompt_tokens
    // How the template is used.
    {"chat_template", kRefused, kChat},
    {"chat_template_kwargs", kRead, kChat},
    {"add_generation_prompt", kRefused, kChat, "true"},
    {"continue_final_message", kRefused, kChat},
    {"add_special_tokens", kRead, kCompletions},
    {"add_special_tokens", kRefused, kChat},
    {"documents", kRead, kChat},
    {"reasoning_effort", kRead, kChat},
    {"verbosity", kRead, kChat},
    {"include_reasoning", kRefused, kChat, "true"},
    {"thinking_token_budget", kRefused},
    {"web_search_options", kRefused, kChat},
    {"moderation", kRefused},
    // Tools.
    {"tools", kRead, kChat},
    {"tool_choice", kRead, kChat},
    {"parallel_tool_calls", kRead, kChat},
    {"functions", kRefused, kChat},
    {"function_call", kRefused, kChat, R"("none" "auto")"},
    // Sampling.
    {"temperature", kRead},
    {"top_p", kRead},
    {"top_k", kRead},
    {"min_p", kRead},
    {"typical_p", kRefused, kBoth, "1 1.0"},
    {"mirostat", kRefused, kBoth, "0"},
    {"repetition_penalty", kRead},
    {"presence_penalty", kRead},
    {"frequency_penalty", kRead},
    {"logit_bias", kRead},
    {"seed", kRead},
    {"n", kRead},
    {"best_of", kRead, kCompletions},
    {"use_beam_search", kRefused},
    {"length_penalty", kHarmless},  // of no effect without beam search
    {"logits_processors", kRefused},
    {"vllm_xargs", kRefused},
    // What the answer may hold.
    {"response_format", kRead},
    {"structured_outputs", kRefused},
    {"guided_json", kRefused},
    {"guided_regex", kRefused},
    {"guided_choice", kRefused},
    {"guided_grammar", kRefused},
    {"structural_tag", kRefused},
    {"guided_decoding_backend", kHarmless},
    {"guided_whitespace_pattern", kHarmless},
    {"grammar", kRefused},
    {"json_schema", kRefused},
    {"regex", kRefused},
    {"ebnf", kRefused},
    {"bad_words", kRefused},
    {"allowed_token_ids", kRefused},
    // Where it ends.
    {"max_tokens", kRead},
    {"max_completion_tokens", kRead, kChat},
    {"min_tokens", kRefused, kBoth, "0"},
    {"stop", kRead},
    {"stop_token_ids", kRead},
    {"include_stop_str_in_output", kRead},
    {"ignore_eos", kRead},
    {"repetition_detection", kRefused},
    // Its form.
    {"stream", kRead},
    {"stream_options", kRead},
    {"logprobs", kRead},
    {"top_logprobs", kRead, kChat},
    {"prompt_logprobs", kRefused},
    {"return_token_ids", kRead},
    {"return_tokens_as_token_ids", kRead},
    {"skip_special_tokens", kRead},
    {"spaces_between_special_tokens", kHarmless},  // text is decoded as transformers does
    // Order, cost, bookkeeping.
    {"priority", kRefused, kBoth, "0"},
    {"kv_transfer_params", kRefused},
    {"cache_salt", kRead},
    {"prediction", kHarmless, kChat},
    {"service_tier", kHarmless},
    {"store", kHarmless},
    {"metadata", kHarmless},
    {"user", kHarmless},
    {"safety_identifier", kHarmless},
    {"prompt_cache_key", kHarmless},
    {"prompt_cache_retention", kHarmless},
    {"prompt_cache_options", kHarmless},
    {"request_id", kHarmless},
};

Routes routes_of(Route route) { return route == Route::kChat ? kChat : kCompletions; }

const FieldRule* rule_of(std::string_view name, Route route) {
  const auto* found = std::find_if(std::begin(kFields), std::end(kFields), [&](const auto& rule) {
    return (rule.routes & routes_of(route)) != 0 && rule.name == name;
  });
  return found == std::end(kFields) ? nullptr : found;
}

bool is_allowed(const FieldRule& rule, const Json& value) {
  std::string_view left = rule.allowed;
  const std::string given = dump_json(value);
  while (!left.empty()) {
    const size_t end = std::min(left.find(' '), left.size());
    if (left.substr(0, end) == given) return true;
    left.remove_prefix(std::min(end + 1, left.size()));
  }
  return false;
}

}  // namespace

bool asks_for_nothing(const Json& value) {
  if (value.is_null() || value == false) return true;
  return value == "" || (value.is_structured() && value.empty());
}

std::optional<RefusedField> refused_field(const Json& body, Route route) {
  for (const auto& [name, value] : body.items()) {
    const FieldRule* rule = rule_of(name, route);
    if (rule == nullptr || rule->treatment != kRefused) continue;
    // Of a field whose default is true, false asks for something.
    const bool says_no = value == false && std::string_view(rule->allowed) == "true";
    if (is_allowed(*rule, value) || (!says_no && asks_for_nothing(value))) continue;
    return RefusedField{name, rule->allowed};
  }
  return std::nullopt;
}

std::vector<std::string> unknown_fields(const Json& body, Route route) {
  std::vector<std::string> out;
  for (const auto& [name, value] : body.items()) {
    if (rule_of(name, route) == nullptr) out.push_back(name);
  }
  return out;
}

}  // namespace lorry::serve

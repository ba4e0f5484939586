#include "serve/openai_api.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "serve/request_fields.h"

namespace lorry::serve {
namespace {

constexpr int64_t kMaxChoices = 128;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

ApiError bad_field(std::string_view field, std::string_view problem) {
  return {
      400, fmt::format("'{}' {}", field, problem), "invalid_request_error", std::string(field), {}};
}

std::string_view kind_of(const Json& value) {
  if (value.is_number_float()) return "a number with a fraction";
  if (value.is_number()) return "a number";
  if (value.is_string()) return "a string";
  if (value.is_boolean()) return "a boolean";
  if (value.is_array()) return "an array";
  return value.is_object() ? "an object" : "null";
}

/// Reads fields of a body; the first wrong one is kept in `error`. Absent and null are the same.
class Fields {
 public:
  explicit Fields(const Json& body) : body_(body) {}
  std::optional<ApiError> error;

  const Json* find(std::string_view name) const {
    const auto it = body_.find(name);
    return it == body_.end() || it->is_null() ? nullptr : &*it;
  }
  void fail(std::string_view name, std::string_view problem) {
    if (!error) error = bad_field(name, problem);
  }
  void expected(std::string_view name, std::string_view what, const Json& got) {
    fail(name, fmt::format("must be {}, not {}", what, kind_of(got)));
  }

  void read(std::string_view name, bool& out) {
    const Json* value = find(name);
    if (!value) return;
    if (!value->is_boolean()) return expected(name, "a boolean", *value);
    out = value->get<bool>();
  }
  void read(std::string_view name, std::string& out) {
    const Json* value = find(name);
    if (!value) return;
    if (!value->is_string()) return expected(name, "a string", *value);
    out = value->get<std::string>();
  }
  void read(std::string_view name, double& out, double low, double high) {
    const Json* value = find(name);
    if (!value) return;
    if (!value->is_number()) return expected(name, "a number", *value);
    const double number = value->get<double>();
    if (!(number >= low && number <= high))
      return fail(name, high == kInfinity
                            ? fmt::format("must be at least {}, not {}", low, number)
                            : fmt::format("must be from {} to {}, not {}", low, high, number));
    out = number;
  }
  std::optional<int64_t> integer(std::string_view name, int64_t low, int64_t high) {
    const Json* value = find(name);
    if (!value) return std::nullopt;
    return integer_value(name, *value, low, high);
  }
  std::optional<int64_t> integer_value(std::string_view name, const Json& value, int64_t low,
                                       int64_t high) {
    const bool whole = value.is_number_float() && std::trunc(value.get<double>()) == value;
    if (!value.is_number_integer() && !whole) {
      expected(name, "an integer", value);
      return std::nullopt;
    }
    const bool huge =
        value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
    const int64_t number = huge ? INT64_MAX : value.get<int64_t>();
    if (number < low || number > high) {
      fail(name, high == INT64_MAX
                     ? fmt::format("must be at least {}, not {}", low, number)
                     : fmt::format("must be from {} to {}, not {}", low, high, number));
      return std::nullopt;
    }
    return number;
  }

 private:
  const Json& body_;
};

void read_stop(Fields& fields, GenerationOptions& out) {
  const Json* stop = fields.find("stop");
  if (!stop) return;
  if (stop->is_string()) {
    out.stop = {stop->get<std::string>()};
    return;
  }
  if (!stop->is_array()) return fields.expected("stop", "a string or an array of strings", *stop);
  for (const Json& one : *stop) {
    if (!one.is_string()) return fields.expected("stop", "an array of strings", one);
    out.stop.push_back(one.get<std::string>());
  }
}

std::vector<int32_t> read_ids(Fields& fields, std::string_view name, const Json& array) {
  std::vector<int32_t> ids;
  ids.reserve(array.size());
  for (const Json& one : array) {
    const auto id = fields.integer_value(name, one, 0, INT32_MAX);
    if (!id) return {};
    ids.push_back(static_cast<int32_t>(*id));
  }
  return ids;
}

void read_logit_bias(Fields& fields, GenerationOptions& out) {
  const Json* bias = fields.find("logit_bias");
  if (!bias) return;
  if (!bias->is_object()) return fields.expected("logit_bias", "an object", *bias);
  for (const auto& [key, value] : bias->items()) {
    const bool digits =
        !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos;
    if (!digits || !value.is_number())
      return fields.fail("logit_bias", "must map token ids to numbers");
    out.logit_bias.emplace_back(std::stoi(key), value.get<float>());
  }
}

void read_stream(Fields& fields, GenerationOptions& out) {
  fields.read("stream", out.stream);
  const Json* options = fields.find("stream_options");
  if (!options) return;
  if (!options->is_object()) return fields.expected("stream_options", "an object", *options);
  Fields inner(*options);
  inner.read("include_usage", out.include_usage);
  inner.read("continuous_usage_stats", out.continuous_usage);
  if (inner.error && !fields.error) fields.error = inner.error;
}

void read_response_format(Fields& fields) {
  const Json* format = fields.find("response_format");
  if (!format) return;
  if (!format->is_object()) return fields.expected("response_format", "an object", *format);
  if (const auto type = format->find("type"); type != format->end() && *type != "text")
    fields.fail("response_format",
                "may only ask for type \"text\": this server does not constrain "
                "what the model writes");
}

/// To ignore such a field would break a promise in silence.
void refuse_unsupported(Fields& fields, const Json& body, Route route) {
  const auto refused = refused_field(body, route);
  if (!refused) return;
  fields.fail(refused->name,
              "is not supported by this server" +
                  (refused->allowed.empty() ? "" : "; it may only be " + refused->allowed));
}

void read_common(Fields& fields, GenerationOptions& out, const generate::SamplingParams& defaults) {
  out.sampling = defaults;
  auto& sampling = out.sampling;
  fields.read("temperature", sampling.temperature, 0, kInfinity);
  fields.read("top_p", sampling.top_p, 0, 1);
  fields.read("min_p", sampling.min_p, 0, 1);
  if (const auto k = fields.integer("top_k", -1, INT32_MAX))
    sampling.top_k = std::max<int64_t>(*k, 0);
  fields.read("repetition_penalty", sampling.repetition_penalty, 0, kInfinity);
  if (sampling.repetition_penalty == 0) fields.fail("repetition_penalty", "must be above 0");
  fields.read("presence_penalty", sampling.presence_penalty, -2, 2);
  fields.read("frequency_penalty", sampling.frequency_penalty, -2, 2);
  if (const auto seed = fields.integer("seed", INT64_MIN, INT64_MAX))
    out.seed = static_cast<uint64_t>(*seed);
  if (const auto n = fields.integer("n", 1, kMaxChoices)) out.n = *n;
  read_stop(fields, out);
  if (const Json* ids = fields.find("stop_token_ids")) {
    if (ids->is_array()) {
      out.stop_token_ids = read_ids(fields, "stop_token_ids", *ids);
    } else {
      fields.expected("stop_token_ids", "an array of integers", *ids);
    }
  }
  read_logit_bias(fields, out);
  fields.read("ignore_eos", out.ignore_eos);
  fields.read("include_stop_str_in_output", out.include_stop);
  fields.read("skip_special_tokens", out.skip_special_tokens);
  fields.read("return_token_ids", out.return_token_ids);
  fields.read("return_tokens_as_token_ids", out.tokens_as_ids);
  fields.read("cache_salt", out.cache_salt);
  read_stream(fields, out);
  read_response_format(fields);
}

/// The text of a content that is a list of parts; nullopt (and an error) for other kinds of parts.
std::optional<std::string> join_parts(Fields& fields, const std::string& where, const Json& parts) {
  std::string text;
  bool first = true;
  for (const Json& part : parts) {
    const Json* piece = nullptr;
    if (part.is_string()) piece = &part;
    if (part.is_object()) {
      const std::string type = part.value("type", Json("text")).is_string()
                                   ? part.value("type", std::string("text"))
                                   : std::string("?");
      if (type != "text") {
        fields.fail(
            "messages",
            fmt::format("{} has a part of type \"{}\"; this server takes text only", where, type));
        return std::nullopt;
      }
      const auto it = part.find("text");
      if (it != part.end() && it->is_string()) piece = &*it;
    }
    if (!piece) {
      fields.fail("messages",
                  where + " has a part that is not {\"type\": \"text\", \"text\": ...}");
      return std::nullopt;
    }
    if (!first) text += '\n';
    first = false;
    text += piece->get_ref<const std::string&>();
  }
  return text;
}

/// Arguments of a tool call come as JSON text, of a call without any as none; templates want the
/// object, as in training data.
void parse_arguments(Json& function) {
  Json& arguments = function["arguments"];
  if (arguments.is_null() || arguments == "") arguments = Json::object();
  if (!arguments.is_string()) return;
  auto parsed = parse_json(arguments.get_ref<const std::string&>(), "arguments");
  if (parsed.ok() && parsed->is_object()) arguments = *std::move(parsed);
}

/// A list of no calls is no list: to templates that ask whether there is one, it would be a call.
void read_tool_calls(Json& message) {
  const auto calls = message.find("tool_calls");
  if (calls == message.end()) return;
  if (calls->is_null() || (calls->is_array() && calls->empty())) {
    message.erase("tool_calls");
    const auto content = message.find("content");
    if (content == message.end() || content->is_null()) message["content"] = "";
    return;
  }
  if (!calls->is_array()) return;
  for (Json& call : *calls) {
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object()) continue;
    parse_arguments(call["function"]);
  }
}

void read_messages(Fields& fields, ChatRequest& out) {
  const Json* messages = fields.find("messages");
  if (!messages) return fields.fail("messages", "is required: an array of {\"role\", \"content\"}");
  if (!messages->is_array()) return fields.expected("messages", "an array", *messages);
  if (messages->empty()) return fields.fail("messages", "must hold at least one message");
  out.messages = *messages;
  for (size_t i = 0; i < out.messages.size(); ++i) {
    Json& message = out.messages[i];
    const std::string where = fmt::format("messages[{}]", i);
    if (!message.is_object()) return fields.fail("messages", where + " must be an object");
    const auto role = message.find("role");
    if (role == message.end() || !role->is_string())
      return fields.fail("messages", where + ".role must be a string");
    read_tool_calls(message);
    const auto content = message.find("content");
    if (content != message.end() && content->is_array()) {
      auto text = join_parts(fields, where + ".content", *content);
      if (!text) return;
      *content = std::move(*text);
    } else if (content != message.end() && !content->is_string() && !content->is_null()) {
      return fields.fail("messages",
                         fmt::format("{}.content must be a string or an array of parts, "
                                     "not {}",
                                     where, kind_of(*content)));
    } else if ((content == message.end() || content->is_null()) &&
               !message.contains("tool_calls")) {
      return fields.fail("messages", where + ".content is missing");
    }
  }
}

void read_tools(Fields& fields, ChatRequest& out) {
  const Json* choice = fields.find("tool_choice");
  if (choice && *choice != "none" && *choice != "auto")
    fields.fail("tool_choice",
                "may be \"none\" or \"auto\" only: this server does not force a call");
  if (choice && *choice == "none") return;
  const Json* tools = fields.find("tools");
  if (!tools) return;
  if (!tools->is_array()) return fields.expected("tools", "an array", *tools);
  for (const Json& tool : *tools) {
    if (!tool.is_object()) return fields.expected("tools", "an array of objects", tool);
    const Json& function = tool.contains("function") ? tool["function"] : tool;
    if (!function.is_object() || !function.value("name", Json()).is_string())
      return fields.fail("tools", "must hold functions, each with a name");
    out.callable.push_back(function["name"].get<std::string>());
  }
  if (!tools->empty()) out.tools = *tools;
  bool parallel = true;
  fields.read("parallel_tool_calls", parallel);
  out.one_call = !parallel;
}

/// What templates of some models know under the same name (GPT-OSS, Granite, Command R).
void read_template_fields(Fields& fields, ChatRequest& out) {
  if (const Json* extra = fields.find("chat_template_kwargs")) {
    if (!extra->is_object()) fields.expected("chat_template_kwargs", "an object", *extra);
    out.extra = *extra;
  }
  const auto read = [&](const char* name, std::string_view what, bool right, const Json& value) {
    if (!right) return fields.expected(name, what, value);
    out.template_fields.emplace_back(name, value);
  };
  if (const Json* effort = fields.find("reasoning_effort"))
    read("reasoning_effort", "a string", effort->is_string(), *effort);
  // "medium" is what every client of it sends that asks for nothing.
  if (const Json* verbosity = fields.find("verbosity"); verbosity && *verbosity != "medium")
    read("verbosity", "a string", verbosity->is_string(), *verbosity);
  if (const Json* documents = fields.find("documents"); documents && !asks_for_nothing(*documents))
    read("documents", "an array", documents->is_array(), *documents);
}

void read_prompts(Fields& fields, CompletionRequest& out) {
  const Json* prompt = fields.find("prompt");
  if (!prompt) return fields.fail("prompt", "is required");
  if (prompt->is_string()) {
    out.prompts.emplace_back(prompt->get<std::string>());
    return;
  }
  static constexpr std::string_view kWanted =
      "a string, an array of strings, an array of token ids, or an array of such arrays";
  if (!prompt->is_array()) return fields.expected("prompt", kWanted, *prompt);
  if (prompt->empty()) return fields.fail("prompt", "must not be an empty array");
  if ((*prompt)[0].is_number()) {
    out.prompts.emplace_back(read_ids(fields, "prompt", *prompt));
    return;
  }
  for (const Json& one : *prompt) {
    if (one.is_string()) {
      out.prompts.emplace_back(one.get<std::string>());
    } else if (one.is_array()) {
      out.prompts.emplace_back(read_ids(fields, "prompt", one));
    } else {
      return fields.expected("prompt", kWanted, one);
    }
  }
}

}  // namespace

std::string error_body(const ApiError& error) {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  Json inner;
  inner["message"] = error.message;
  inner["type"] = error.type;
  inner["param"] = or_null(error.param);
  inner["code"] = or_null(error.code);
  Json body;
  body["error"] = std::move(inner);
  return dump_json(body);
}

ApiError not_found_error(std::string message) {
  return {404, std::move(message), "invalid_request_error", {}, "not_found"};
}

ApiError server_error(int status, std::string message) {
  return {status, std::move(message), "server_error", {}, {}};
}

ApiError context_length_error(int64_t max_model_len, int64_t prompt_tokens, std::string param) {
  return {
      400,
      fmt::format("This model's maximum context length is {} tokens. However, your {} resulted in "
                  "{} tokens. Please reduce the length of the {}.",
                  max_model_len, param, prompt_tokens, param),
      "invalid_request_error", param, "context_length_exceeded"};
}

std::variant<Json, ApiError> parse_body(std::string_view body) {
  Result<Json> json = parse_json(body, "the request's body");
  if (!json.ok()) return ApiError{400, json.error().message};
  if (!json->is_object())
    return ApiError{
        400, fmt::format("the request's body must be a JSON object, not {}", kind_of(*json))};
  return std::move(json).value();
}

std::variant<std::string, ApiError> requested_model(const Json& body) {
  const auto it = body.find("model");
  if (it == body.end() || it->is_null()) return std::string();
  if (!it->is_string()) return bad_field("model", "must be a string");
  return it->get<std::string>();
}

std::variant<ChatRequest, ApiError> parse_chat_request(const Json& body,
                                                       const generate::SamplingParams& defaults) {
  ChatRequest out;
  Fields fields(body);
  read_messages(fields, out);
  read_tools(fields, out);
  read_common(fields, out, defaults);
  read_template_fields(fields, out);
  refuse_unsupported(fields, body, Route::kChat);
  out.max_tokens = fields.integer("max_tokens", 1, INT64_MAX);
  if (const auto newer = fields.integer("max_completion_tokens", 1, INT64_MAX))
    out.max_tokens = newer;
  bool logprobs = false;
  fields.read("logprobs", logprobs);
  const auto top = fields.integer("top_logprobs", 0, 20);
  if (logprobs) out.top_logprobs = top.value_or(0);
  if (!logprobs && top.value_or(0) > 0) fields.fail("top_logprobs", "needs 'logprobs' to be true");
  if (fields.error) return *fields.error;
  return out;
}

std::variant<CompletionRequest, ApiError> parse_completion_request(
    const Json& body, const generate::SamplingParams& defaults) {
  CompletionRequest out;
  Fields fields(body);
  read_prompts(fields, out);
  read_common(fields, out, defaults);
  refuse_unsupported(fields, body, Route::kCompletions);
  fields.read("echo", out.echo);
  fields.read("add_special_tokens", out.add_special_tokens);
  // The API's own default here is 16 tokens.
  out.max_tokens = fields.integer("max_tokens", out.echo ? 0 : 1, INT64_MAX).value_or(16);
  out.top_logprobs = fields.integer("logprobs", 0, 20).value_or(-1);
  out.score_prompt = out.echo && out.top_logprobs >= 0;
  if (const auto best_of = fields.integer("best_of", 1, kMaxChoices); best_of && *best_of != out.n)
    fields.fail("best_of", "is not supported unless it equals 'n'");
  if (fields.error) return *fields.error;
  return out;
}

}  // namespace lorry::serve

#include "chat/chat.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "chat/call_ids.h"
#include "chat/calls.h"
#include "chat/losses.h"
#include "chat/samples.h"
#include "chat/system_messages.h"

namespace lorry::chat {

namespace {

const Json& null_json() {
  static const Json kNull;
  return kNull;
}

}  // namespace

Result<Chat::Format> Chat::make_format(std::string source) const {
  Format out;
  LORRY_ASSIGN(out.tmpl, ChatTemplate::parse(std::move(source)));
  out.capabilities = probe_capabilities([&](const Json& messages,
                                            const Json& tools) -> Result<std::string> {
    LORRY_ASSIGN(auto rendered, render_prepared(*out.tmpl, messages, tools, false, null_json()));
    return std::move(rendered.text);
  });
  learn_seams(out);
  return out;
}

Result<std::shared_ptr<const Chat>> Chat::load(const ReadFile& read_file,
                                               std::string template_override,
                                               TemplateSettings settings) {
  LORRY_ASSIGN(const auto tokenizer_json, read_file("tokenizer.json"));
  if (!tokenizer_json) {
    return not_found(
        "the model has no tokenizer.json; save it with a fast tokenizer (transformers: "
        "AutoTokenizer.from_pretrained(...).save_pretrained(dir))");
  }
  LORRY_ASSIGN(const auto config, read_file("tokenizer_config.json"));
  std::shared_ptr<Chat> chat(new Chat);
  // Which class transformers takes, and some special tokens, stand in these.
  LORRY_ASSIGN(const auto special_tokens_map, read_file("special_tokens_map.json"));
  LORRY_ASSIGN(const auto model_config, read_file("config.json"));
  const auto view = [](const std::optional<std::string>& file) {
    return file ? std::string_view(*file) : std::string_view();
  };
  LORRY_ASSIGN(chat->tokenizer_,
               tokenizer::Tokenizer::load(tokenizer::TokenizerFiles{
                   *tokenizer_json, view(config), view(special_tokens_map), view(model_config)}));
  TemplateSources sources;
  if (!template_override.empty()) {
    sources.plain = std::move(template_override);
  } else {
    LORRY_ASSIGN(sources, find_templates(read_file, settings.name));
  }
  chat->settings_ = std::move(settings);
  std::string all = sources.plain;
  if (!sources.tool_use.empty()) all += '\0' + sources.tool_use;
  if (!all.empty()) chat->template_digest_ = sha256_hex(all);
  if (!sources.plain.empty()) {
    LORRY_ASSIGN(chat->format_, chat->make_format(std::move(sources.plain)));
  }
  if (!sources.tool_use.empty()) {
    LORRY_ASSIGN(chat->tool_format_, chat->make_format(std::move(sources.tool_use)));
  }
  return std::shared_ptr<const Chat>(std::move(chat));
}

bool Chat::uses_date() const {
  const auto asks = [](const Format& format) {
    return format.tmpl != nullptr &&
           format.tmpl->source().find("strftime_now") != std::string::npos;
  };
  return asks(format_) || asks(tool_format_);
}

Result<const Chat::Format*> Chat::format_for(const Json& tools) const {
  if (!tools.is_null() && tool_format_.tmpl != nullptr) return &tool_format_;
  if (format_.tmpl != nullptr) return &format_;
  return invalid_input(
      "the model has no chat template; put a chat_template.jinja into its directory or give one "
      "with --chat-template FILE");
}

Result<ChatTemplate::Rendered> Chat::render_prepared(const ChatTemplate& tmpl, const Json& messages,
                                                     const Json& tools, bool add_generation_prompt,
                                                     const Json& extra) const {
  const Json prompt = add_generation_prompt;
  const Json& special = tokenizer_->special_tokens_map();
  ChatTemplate::Variables variables;
  variables.reserve(4 + extra.size() + settings_.variables.size() + special.size());
  variables.emplace_back("messages", &messages);
  variables.emplace_back("tools", &tools);
  variables.emplace_back("add_generation_prompt", &prompt);
  if (extra.is_object()) {
    for (const auto& [name, value] : extra.get_ref<const Json::object_t&>()) {
      variables.emplace_back(name, &value);
    }
  }
  if (settings_.variables.is_object()) {
    for (const auto& [name, value] : settings_.variables.get_ref<const Json::object_t&>()) {
      if (!extra.contains(name)) variables.emplace_back(name, &value);
    }
  }
  variables.emplace_back("documents", &null_json());
  if (special.is_object()) {
    for (const auto& [name, value] : special.get_ref<const Json::object_t&>()) {
      variables.emplace_back(name, &value);
    }
  }
  return tmpl.render(variables, settings_.date);
}

/// A conversation's text.
struct Chat::Rendering {
  ChatTemplate::Rendered rendered;
  Json changed;  ///< what was made of the messages to get there; null if nothing was
  bool changes_call_ids = false;

  const Json& messages(const Json& given) const { return changed.is_null() ? given : changed; }
};

Result<Chat::Rendering> Chat::render_as(const Format& format, const Json& messages,
                                        const Json& tools, bool add_generation_prompt,
                                        const Json& extra, Adapt adapt) const {
  Rendering out;
  LORRY_ASSIGN(const Json* fit, prepare_messages(messages, out.changed));
  if (Json joined;
      adapt != Adapt::kNever && join_parts(*fit, format.capabilities, joined) == &joined) {
    out.changed = std::move(joined);
    fit = &out.changed;
  }
  auto text = render_prepared(*format.tmpl, *fit, tools, add_generation_prompt, extra);
  const auto lacks_calls = [&](const auto& rendered) {
    return rendered.ok() && loses_calls(*fit, rendered->text);
  };
  if (adapt != Adapt::kNever && (!text.ok() || lacks_calls(text))) {
    const auto take = [&](Json adapted) {
      auto other = render_prepared(*format.tmpl, adapted, tools, add_generation_prompt, extra);
      if (!other.ok() || (text.ok() && lacks_calls(other))) return false;
      text = std::move(other);
      out.changed = std::move(adapted);
      return true;
    };
    LORRY_ASSIGN(Json adapted, adapt_messages(*fit, format.capabilities));
    if (!text.ok() && format.capabilities.needs_call_ids)
      out.changes_call_ids = fit_call_ids(adapted);
    const bool taken = adapted != *fit && take(std::move(adapted));
    Json folded = taken ? out.changed : *fit;
    if (text.ok() && lacks_calls(text)) {
      for (Json& message : folded) {
        if (has_calls(message)) fold_calls(message);
      }
      take(std::move(folded));
    }
  }
  if (!text.ok()) return std::move(text).error();
  out.rendered = std::move(text).value();
  return out;
}

Result<std::string> Chat::render(const Json& messages, const Json& tools,
                                 bool add_generation_prompt, const Json& extra, Adapt adapt) const {
  LORRY_ASSIGN(const Format* format, format_for(tools));
  const Json given = settings_.system_as_user ? system_as_user(messages).messages : Json();
  LORRY_ASSIGN(auto text, render_as(*format, given.is_null() ? messages : given, tools,
                                    add_generation_prompt, extra, adapt));
  return std::move(text.rendered.text);
}

std::optional<CallForm> Chat::call_form() const {
  if (!has_template()) return std::nullopt;
  return find_call_form([this](const Json& messages, const Json& tools, bool prompt) {
    return render(messages, tools, prompt, null_json(), Adapt::kWhereItFails);
  });
}

bool Chat::shows_tools() const {
  return chat::shows_tools([this](const Json& messages, const Json& tools, bool prompt) {
    return render(messages, tools, prompt, null_json());
  });
}

Result<std::vector<int32_t>> Chat::encode_prompt(const Json& messages, const Json& tools,
                                                 const Json& extra) const {
  LORRY_ASSIGN(const std::string text, render(messages, tools, true, extra, Adapt::kWhereItFails));
  return tokenizer_->encode(text, false);
}

namespace {

// Sets the mask of the tokens that begin inside a span.
void mark(const tokenizer::Encoding& encoding, const std::vector<AssistantSpan>& spans,
          std::vector<int8_t>& mask) {
  size_t t = 0;
  for (const auto& [begin, end, message] : spans) {
    while (t < encoding.ids.size() && encoding.offsets[t].first < begin) ++t;
    for (; t < encoding.ids.size() && encoding.offsets[t].first < end; ++t) {
      if (encoding.offsets[t].second > encoding.offsets[t].first) mask[t] = 1;
    }
  }
}

// Of a `{% generation %}` block: whose message it is.
constexpr size_t kUnknown = static_cast<size_t>(-1);

// Clears the mask where an answer that is context is said, and in the blocks that hold a part of
// one.
void unmark(const tokenizer::Encoding& encoding, const std::vector<AssistantSpan>& turns,
            const std::vector<AssistantSpan>& blocks, std::span<const size_t> context,
            std::vector<int8_t>& mask) {
  const auto clear = [&](const AssistantSpan& span) {
    for (size_t t = 0; t < mask.size(); ++t) {
      const size_t begin = encoding.offsets[t].first;
      if (span.begin <= begin && begin < span.end) mask[t] = 0;
    }
  };
  for (const auto& turn : turns) {
    if (std::find(context.begin(), context.end(), turn.message) == context.end()) continue;
    clear(turn);
    for (const auto& block : blocks) {
      if (block.begin < turn.end && turn.begin < block.end) clear(block);
    }
  }
}

// `{% generation %}` as `transformers` maps it: from the token that holds the first character to
// the one that holds the last.
std::vector<AssistantSpan> whole_tokens(const tokenizer::Encoding& encoding,
                                        const std::vector<Span>& spans) {
  std::vector<AssistantSpan> out;
  for (const auto& [begin, end] : spans) {
    if (begin != end) out.push_back({token_around(encoding, begin).first, end, kUnknown});
  }
  return out;
}

/// Offsets where they are asked for: ids alone cost less.
tokenizer::Encoding encoded(const tokenizer::Tokenizer& tokenizer, std::string_view text,
                            bool adds_special, bool with_offsets) {
  if (with_offsets) return tokenizer.encode_with_offsets(text, adds_special);
  tokenizer::Encoding encoding;
  encoding.ids = tokenizer.encode(text, adds_special);
  return encoding;
}

// The tokens that end a turn: special ones and EOS, which is looked up by name, once.
class EndTokens {
 public:
  explicit EndTokens(const tokenizer::Tokenizer& tokenizer)
      : tokenizer_(tokenizer), eos_(tokenizer.eos_id()) {}
  bool has(int32_t id) const { return tokenizer_.is_special(id) || eos_ == id; }
  /// Whether the ids end in one; a line break may follow it.
  bool close(const std::vector<int32_t>& ids) const {
    const auto last_two = ids.end() - static_cast<std::ptrdiff_t>(std::min<size_t>(ids.size(), 2));
    return std::any_of(last_two, ids.end(), [this](int32_t id) { return has(id); });
  }

 private:
  const tokenizer::Tokenizer& tokenizer_;
  const std::optional<int32_t> eos_;
};

// Whether a run of trained tokens ends in one that ends a turn; white space may follow it.
bool trains_an_end(const EncodedExample& example, const tokenizer::Encoding& encoding,
                   const tokenizer::Tokenizer& tokenizer) {
  const auto is_blank = [&](size_t t) {
    const auto [begin, end] = encoding.offsets[t];
    return std::string_view(example.text)
               .substr(begin, end - begin)
               .find_first_not_of(" \t\n\v\f\r") == std::string_view::npos;
  };
  const auto& mask = example.assistant_masks;
  const EndTokens ends(tokenizer);
  for (size_t t = 0; t < mask.size(); ++t) {
    if (mask[t] == 0 || !ends.has(encoding.ids[t])) continue;
    size_t next = t + 1;
    while (next < mask.size() && mask[next] != 0 && is_blank(next)) ++next;
    if (next == mask.size() || mask[next] == 0) return true;
  }
  return false;
}

}  // namespace

namespace {

bool says_something(const Json& message) {
  for (const char* key : {"content", "reasoning_content", "tool_calls"}) {
    const auto value = message.find(key);
    if (value == message.end() || value->is_null()) continue;
    if (!value->is_string()) {
      if (!value->empty()) return true;
    } else if (value->get_ref<const std::string&>().find_first_not_of(" \t\n\v\f\r") !=
               std::string::npos) {
      return true;
    }
  }
  return false;
}

NoTarget why_no_target(const Json& messages, const EncodedExample& example,
                       std::span<const size_t> context) {
  if (std::find(example.assistant_masks.begin(), example.assistant_masks.end(), 1) !=
      example.assistant_masks.end())
    return NoTarget::kNone;
  if (example.input_ids.empty()) return NoTarget::kNoText;
  bool assistant = false, says = false;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].value("role", Json()) != "assistant") continue;
    assistant = true;
    if (std::find(context.begin(), context.end(), i) != context.end()) continue;
    says |= says_something(messages[i]);
  }
  if (assistant && !says && !context.empty()) return NoTarget::kContext;
  return !assistant ? NoTarget::kNoAssistant : says ? NoTarget::kNotShown : NoTarget::kEmpty;
}

}  // namespace

namespace {

std::vector<Loss> losses_that_count(std::vector<Loss> losses, TrainOn train_on,
                                    std::span<const size_t> context) {
  std::erase_if(losses, [&](const Loss& loss) {
    if (loss.part != Part::kReasoning && loss.part != Part::kEarlierReasoning) return false;
    if (train_on == TrainOn::kLast && loss.part == Part::kEarlierReasoning) return true;
    return std::find(context.begin(), context.end(), loss.message) != context.end();
  });
  return losses;
}

}  // namespace

Result<EncodedExample> Chat::encode_example(const Json& messages, const Json& tools,
                                            const ExampleOptions& options,
                                            std::span<const size_t> context) const {
  if (!settings_.system_as_user) return encode_messages(messages, tools, options, context);
  const auto folded = system_as_user(messages);
  LORRY_ASSIGN(auto out, encode_messages(folded.messages, tools, options, folded.places(context)));
  for (Loss& loss : out.losses) {
    if (loss.part != Part::kTools) loss.message = folded.kept[loss.message];
  }
  return out;
}

Result<EncodedExample> Chat::encode_messages(const Json& messages, const Json& tools,
                                             const ExampleOptions& options,
                                             std::span<const size_t> context) const {
  LORRY_ASSIGN(const Format* format, format_for(tools));
  auto rendered = render_as(*format, messages, tools, false, null_json(), options.adapt);
  if (!rendered.ok()) return with_remedy(std::move(rendered).error(), *format, messages, tools);
  Rendering& rendering = *rendered;
  const Json& shown = rendering.messages(messages);
  const auto& generation = rendering.rendered.generation;
  EncodedExample out;
  out.changes_call_ids = rendering.changes_call_ids;
  out.text = std::move(rendering.rendered.text);
  out.losses = losses_that_count(find_losses(shown, tools, out.text, renderer(*format, tools)),
                                 options.train_on, context);
  if (options.train_on == TrainOn::kAll && !options.with_offsets && context.empty()) {
    out.input_ids = tokenizer_->encode(out.text, false);
    out.assistant_masks.assign(out.input_ids.size(), 1);
    if (out.input_ids.empty()) out.no_target = NoTarget::kNoText;
    out.trains_end = EndTokens(*tokenizer_).close(out.input_ids);
    return out;
  }
  tokenizer::Encoding encoding = tokenizer_->encode_with_offsets(out.text, false);
  out.assistant_masks.assign(encoding.ids.size(), options.train_on == TrainOn::kAll);
  const auto blocks = whole_tokens(encoding, generation);
  std::vector<AssistantSpan> turns;
  if (!context.empty() || (blocks.empty() && options.train_on != TrainOn::kAll))
    turns = find_turns(*format, shown, tools, out.text, encoding, nullptr);
  if (options.train_on != TrainOn::kAll) {
    auto spans = blocks.empty() ? turns : blocks;
    if (options.train_on == TrainOn::kLast && spans.size() > 1) spans = {spans.back()};
    mark(encoding, spans, out.assistant_masks);
  }
  if (!context.empty()) unmark(encoding, turns, blocks, context, out.assistant_masks);
  out.trains_end = trains_an_end(out, encoding, *tokenizer_);
  out.input_ids = std::move(encoding.ids);
  if (options.with_offsets) out.offsets = std::move(encoding.offsets);
  out.no_target = why_no_target(shown, out, context);
  return out;
}

Error Chat::with_remedy(Error error, const Format& format, const Json& messages,
                        const Json& tools) const {
  if (settings_.system_as_user || !messages.is_array() || !has_system(messages)) return error;
  const auto folded = system_as_user(messages);
  const auto text =
      render_as(format, folded.messages, tools, false, null_json(), Adapt::kWhereItFails);
  if (text.ok())
    error.message += "; --system-as-user puts what the system says before the next user message";
  return error;
}

std::vector<AssistantSpan> Chat::find_turns(const Format& format, const Json& prepared,
                                            const Json& tools, const std::string& text,
                                            const tokenizer::Encoding& encoding,
                                            Seams* found) const {
  return assistant_spans(prepared, text, encoding, *tokenizer_, renderer(format, tools),
                         format.seams, found);
}

SpanRender Chat::renderer(const Format& format, const Json& tools) const {
  return [&](const Json& part, bool prompt) -> Result<std::string> {
    LORRY_ASSIGN(auto rendered, render_prepared(*format.tmpl, part, tools, prompt, null_json()));
    return std::move(rendered.text);
  };
}

void Chat::learn_seams(Format& format) const {
  for (const auto& [messages, tools] : sample_conversations()) {
    const auto sample =
        render_as(format, messages, tools, false, null_json(), Adapt::kWhereItFails);
    if (!sample.ok() || !sample->rendered.generation.empty()) continue;
    const std::string& text = sample->rendered.text;
    const auto encoding = tokenizer_->encode_with_offsets(text, false);
    find_turns(format, sample->messages(messages), tools, text, encoding, &format.seams);
  }
}

EncodedExample Chat::encode_text(std::string_view text, bool with_offsets) const {
  EncodedExample out;
  out.text = std::string(text);
  auto encoding = encoded(*tokenizer_, text, true, with_offsets);
  out.input_ids = std::move(encoding.ids);
  out.offsets = std::move(encoding.offsets);
  const auto eos = tokenizer_->eos_id();
  if (eos && (out.input_ids.empty() || out.input_ids.back() != *eos)) {
    out.input_ids.push_back(*eos);
    if (with_offsets) out.offsets.emplace_back(text.size(), text.size());
  }
  out.assistant_masks.assign(out.input_ids.size(), 1);
  out.trains_end = eos.has_value();
  if (out.input_ids.empty()) out.no_target = NoTarget::kNoText;
  return out;
}

EncodedExample Chat::encode_segments(std::span<const Segment> segments,
                                     const ExampleOptions& options) const {
  EncodedExample out;
  const EndTokens ends(*tokenizer_);
  bool learns = false;
  for (const Segment& segment : segments) {
    const bool is_learned = segment.is_learned || options.train_on == TrainOn::kAll;
    const auto encoding = encoded(*tokenizer_, segment.text, false, options.with_offsets);
    out.input_ids.insert(out.input_ids.end(), encoding.ids.begin(), encoding.ids.end());
    out.assistant_masks.resize(out.input_ids.size(), is_learned ? 1 : 0);
    out.trains_end |= is_learned && ends.close(encoding.ids);
    const auto start = static_cast<uint32_t>(out.text.size());
    for (const auto& [begin, end] : encoding.offsets) {
      out.offsets.emplace_back(start + begin, start + end);
    }
    learns |= is_learned && !encoding.ids.empty();
    out.text += segment.text;
  }
  if (!learns) out.no_target = out.input_ids.empty() ? NoTarget::kNoText : NoTarget::kContext;
  return out;
}

}  // namespace lorry::chat

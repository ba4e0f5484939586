// From messages to ids: the one routine that training and serving share, so that what was trained
// is what is served.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "chat/call_form.h"
#include "chat/capabilities.h"
#include "chat/chat_template.h"
#include "chat/losses.h"
#include "chat/spans.h"
#include "chat/template_files.h"
#include "chat/template_settings.h"
#include "tokenizer/tokenizer.h"

namespace lorry::chat {

/// Why nothing of an example is trained on.
enum class NoTarget {
  kNone,         ///< something is
  kNoAssistant,  ///< no message is the assistant's
  kEmpty,        ///< the assistant's messages say nothing, and the template ends their turns with
                 ///< nothing
  kNotShown,     ///< the template leaves out what the assistant says
  kContext,      ///< every answer is context alone
  kNoText,       ///< there are no tokens
};

/// What is known about one training example.
struct EncodedExample {
  std::string text;
  std::vector<int32_t> input_ids;
  std::vector<int8_t> assistant_masks;  ///< 1 on what the assistant must produce
  /// Where each token lies in the text, as in Encoding; empty unless asked for.
  std::vector<std::pair<uint32_t, uint32_t>> offsets;
  NoTarget no_target = NoTarget::kNone;
  /// A special token that ends a turn (or EOS) is trained on: where none is, the model does not
  /// learn to stop.
  bool trains_end = false;
  /// Ids of tool calls were changed into ones that the template takes.
  bool changes_call_ids = false;
  /// What the template does not show. Reasoning counts where it would be trained on: served models
  /// do not see the thoughts of earlier answers either.
  std::vector<Loss> losses;
};

/// A part of a text.
struct Segment {
  std::string text;
  bool is_learned = false;
};

/// What of a conversation is trained on: each assistant turn, the last of them, or the whole text.
enum class TrainOn { kAssistant, kLast, kAll };

/// Whether a conversation that the template cannot take (calls without content, arguments of the
/// other type, parts where it wants text) is changed as little as lets it. Serving and training do.
enum class Adapt { kNever, kWhereItFails };

struct ExampleOptions {
  TrainOn train_on = TrainOn::kAssistant;
  bool with_offsets = false;  ///< fill in EncodedExample::offsets
  Adapt adapt = Adapt::kWhereItFails;
};

/// Tokenizer and template of one model. Thread-safe.
class Chat {
 public:
  /// From tokenizer.json, tokenizer_config.json and chat_template.jinja / .json, wherever the
  /// template lies. A model without a template loads; rendering messages then fails with a sentence
  /// that says how to give one. `template_override`, if not empty, replaces the model's template.
  static Result<std::shared_ptr<const Chat>> load(const ReadFile& read_file,
                                                  std::string template_override = {},
                                                  TemplateSettings settings = {});

  const std::shared_ptr<const tokenizer::Tokenizer>& tokenizer() const { return tokenizer_; }
  bool has_template() const { return format_.tmpl != nullptr || tool_format_.tmpl != nullptr; }

  const TemplateSettings& settings() const { return settings_; }
  /// Whether a template asks what day it is, so that TemplateSettings::date decides its text.
  bool uses_date() const;

  /// The text of a conversation. messages: array of {role, content, ...}; tools: array or null;
  /// `extra` (object or null): further template variables (`enable_thinking`). With kNever it is
  /// that of `transformers`, and fails where that raises.
  Result<std::string> render(const Json& messages, const Json& tools, bool add_generation_prompt,
                             const Json& extra, Adapt adapt = Adapt::kNever) const;

  /// How the template writes tool calls; nullopt if not as JSON. Renders a few conversations.
  std::optional<CallForm> call_form() const;
  /// Whether the template writes the definitions of tools. Renders a conversation.
  bool shows_tools() const;

  /// Ids of the prompt for the next assistant turn (serving). Lists of parts become their text
  /// where the template would print the list; else adapted where the template fails.
  Result<std::vector<int32_t>> encode_prompt(const Json& messages, const Json& tools,
                                             const Json& extra) const;

  /// Ids and mask of a whole conversation (training), adapted where the template fails. The mask
  /// follows the messages' structure: each assistant message after its header (the generation
  /// prompt; without one, all that the template writes before the words) up to and with its
  /// end-of-turn token. The token that holds the answer's first character is trained on.
  /// `context`: assistant messages (places in `messages`) that are not trained on.
  Result<EncodedExample> encode_example(const Json& messages, const Json& tools,
                                        const ExampleOptions& options = {},
                                        std::span<const size_t> context = {}) const;

  /// Ids and mask of plain text with nothing but itself to learn: mask 1 everywhere, EOS appended
  /// if the tokenizer names one.
  EncodedExample encode_text(std::string_view text, bool with_offsets = false) const;
  /// The same of a text in parts, some of them to learn. Each part is tokenized by itself and
  /// nothing is added, as by Axolotl's input_output: the parts spell BOS and EOS out.
  EncodedExample encode_segments(std::span<const Segment> segments,
                                 const ExampleOptions& options = {}) const;

  /// SHA-256 of template source, and of what decides ids.
  const std::string& template_digest() const { return template_digest_; }
  const std::string& tokenizer_digest() const { return tokenizer_->digest(); }

 private:
  /// A template and what it was found to take.
  struct Format {
    std::shared_ptr<const ChatTemplate> tmpl;
    ChatCapabilities capabilities;
    Seams seams;  ///< of small conversations
  };

  Chat() = default;
  Result<Format> make_format(std::string source) const;
  void learn_seams(Format& format) const;
  /// The template for a conversation with or without tools, as `transformers` chooses.
  Result<const Format*> format_for(const Json& tools) const;
  struct Rendering;
  Result<EncodedExample> encode_messages(const Json& messages, const Json& tools,
                                         const ExampleOptions& options,
                                         std::span<const size_t> context) const;
  /// The error of a conversation that the template refused, and the flag that helps, if one does.
  Error with_remedy(Error error, const Format& format, const Json& messages,
                    const Json& tools) const;
  Result<Rendering> render_as(const Format& format, const Json& messages, const Json& tools,
                              bool add_generation_prompt, const Json& extra, Adapt adapt) const;
  Result<ChatTemplate::Rendered> render_prepared(const ChatTemplate& tmpl, const Json& messages,
                                                 const Json& tools, bool add_generation_prompt,
                                                 const Json& extra) const;
  /// Renders prepared messages once more.
  SpanRender renderer(const Format& format, const Json& tools) const;
  /// The turns of a rendered conversation whose template does not mark them.
  std::vector<AssistantSpan> find_turns(const Format& format, const Json& prepared,
                                        const Json& tools, const std::string& text,
                                        const tokenizer::Encoding& encoding, Seams* found) const;

  std::shared_ptr<const tokenizer::Tokenizer> tokenizer_;
  Format format_;  ///< without a template: tmpl is null
  TemplateSettings settings_;
  Format tool_format_;  ///< the template named "tool_use", if there is one
  std::string template_digest_;
};

}  // namespace lorry::chat

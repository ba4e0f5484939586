// Chat templates: the Jinja that models on the Hub use, rendered as `transformers` renders it
// (ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loopcontrols, its `tojson`,
// `raise_exception`, `strftime_now`, `{% generation %}`).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace lorry::chat {

/// A parsed template. Immutable, hence thread-safe; rendering is bounded in work, memory, output
/// and recursion, so that a hostile template fails instead of hanging.
class ChatTemplate {
 public:
  struct Rendered {
    std::string text;
    /// Byte ranges [begin, end) of `text` made inside `{% generation %}` blocks.
    std::vector<std::pair<size_t, size_t>> generation;
  };

  /// Errors name the template line and the reason.
  static Result<std::shared_ptr<const ChatTemplate>> parse(std::string source);
  ~ChatTemplate();

  /// Renders with the variables of `context` (an object: messages, tools, add_generation_prompt,
  /// bos_token, ...). `raise_exception` and type errors give invalid input with template line.
  Result<Rendered> render(const Json& context) const;
  /// The same with variables that stand in several places; none is copied. `day` (2025-01-31) is
  /// what strftime_now formats; empty: the time of rendering.
  using Variables = std::vector<std::pair<std::string_view, const Json*>>;
  Result<Rendered> render(const Variables& variables, const std::string& day = {}) const;

  const std::string& source() const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lorry::chat

#include "chat/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "jinja/interp.h"
#include "tokenizer/unicode.h"

namespace lorry::chat {

struct ChatTemplate::Impl {
  std::string source;
  std::unique_ptr<jinja::Template> parsed;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::~ChatTemplate() = default;

const std::string& ChatTemplate::source() const { return impl_->source; }

namespace {

/// The line of the first byte that is no UTF-8; 0 if there is none.
ptrdiff_t broken_line(const std::string& source) {
  if (tokenizer::is_valid_utf8(source)) return 0;
  size_t at = 0;
  while (const uint32_t size = tokenizer::step_utf8(std::string_view(source).substr(at)).size)
    at += size;
  return 1 + std::count(source.begin(), source.begin() + static_cast<ptrdiff_t>(at), '\n');
}

}  // namespace

Result<std::shared_ptr<const ChatTemplate>> ChatTemplate::parse(std::string source) {
  if (const auto line = broken_line(source); line > 0)
    return invalid_input(fmt::format("chat template, line {}: not UTF-8 text", line));
  auto impl = std::make_unique<Impl>();
  try {
    impl->parsed = jinja::parse_template(source);
  } catch (const jinja::TemplateError& e) {
    return invalid_input(fmt::format("chat template, line {}: {}", e.line, e.message));
  } catch (const std::exception& e) {
    return invalid_input(fmt::format("chat template: {}", e.what()));
  }
  impl->source = std::move(source);
  return std::shared_ptr<const ChatTemplate>(new ChatTemplate(std::move(impl)));
}

Result<ChatTemplate::Rendered> ChatTemplate::render(const Json& context) const {
  if (!context.is_object()) return invalid_input("chat template: the variables are not an object");
  Variables variables;
  for (const auto& [name, value] : context.get_ref<const Json::object_t&>()) {
    variables.emplace_back(name, &value);
  }
  return render(variables);
}

Result<ChatTemplate::Rendered> ChatTemplate::render(const Variables& variables,
                                                    const std::string& day) const {
  static const jinja::Limits kLimits;
  jinja::Interp interp(*impl_->parsed, kLimits, day);
  try {
    Rendered out;
    out.text = interp.render(variables);
    if (!interp.generation_lost()) out.generation = interp.generation();
    return out;
  } catch (const jinja::TemplateError& e) {
    const int line = e.line > 0 ? e.line : interp.line();
    return invalid_input(fmt::format("chat template, line {}: {}", line, e.message));
  } catch (const std::exception& e) {
    return invalid_input(fmt::format("chat template, line {}: {}", interp.line(), e.what()));
  }
}

}  // namespace lorry::chat

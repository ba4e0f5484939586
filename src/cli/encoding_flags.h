// Flags that decide how an example becomes what is trained on: --train-on, --max-length,
// --excess-length.
#pragma once

#include <cstdint>
#include <string>

#include "chat/chat.h"
#include "cli/command.h"
#include "stages/length_limit.h"

namespace lorry::cli {

class EncodingFlags {
 public:
  void declare(Flags& flags);
  /// What no single flag can see.
  Result<> apply(const Context& context);

  const std::string& train_on() const { return train_on_; }
  const stages::LengthLimit& length() const { return length_; }

 private:
  std::string train_on_ = "assistant", excess_ = "truncate";
  stages::LengthLimit length_;
};

/// --template-losses: fail, warn or allow.
void declare_template_losses(Flags& flags, std::string& target);

/// How the chat template is used: --system-as-user, --template-kwargs, --chat-template-name,
/// --date.
class TemplateFlags {
 public:
  void declare(Flags& flags);
  Result<chat::TemplateSettings> settings() const;

 private:
  chat::TemplateSettings settings_;
  std::string variables_;
};

/// --excess-length alone, for a verb whose --max-length is another's.
void declare_excess_length(Flags& flags, std::string& target, const std::string& help);

}  // namespace lorry::cli

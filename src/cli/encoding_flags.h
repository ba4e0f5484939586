// Flags that decide how an example becomes what is trained on: --train-on, --max-length,
// --excess-length.
#pragma once

#include <cstdint>
#include <string>

#include "cli/command.h"
#include "pipeline/length_limit.h"
#include "text/chat.h"

namespace lorry::cli {

class EncodingFlags {
 public:
  void declare(Flags& flags);
  /// What no single flag can see.
  Result<> apply(const Context& context);

  const std::string& train_on() const { return train_on_; }
  const pipeline::LengthLimit& length() const { return length_; }

 private:
  std::string train_on_ = "assistant", excess_ = "truncate";
  pipeline::LengthLimit length_;
};

/// --excess-length alone, for a verb whose --max-length is another's.
void declare_excess_length(Flags& flags, std::string& target, const std::string& help);

}  // namespace lorry::cli

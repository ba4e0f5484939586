// Where the files of a model have its chat templates.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace lorry::chat {

/// Reads a file of the model directory; nullopt if it is not there.
using ReadFile = std::function<Result<std::optional<std::string>>(std::string_view name)>;

struct TemplateSources {
  std::string plain;  ///< "" if there is none
  std::string tool_use;
};

/// The templates as `transformers` looks for them: the .jinja files, else tokenizer_config.json;
/// then the processor's file. With a name: that one alone, for every conversation; not found if the
/// model has none of that name.
Result<TemplateSources> find_templates(const ReadFile& read_file, const std::string& name);

}  // namespace lorry::chat

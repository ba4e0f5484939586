// The names under which `transformers` knows its tokenizer classes. Private to
// tokenizer_classes.cc.
#pragma once

#include <string>
#include <string_view>

namespace lorry::tokenizer {

/// The class that is registered for a model_type of config.json, "" if none: the one that
/// tokenizer_config.json names decides then. "TokenizersBackend" takes tokenizer.json as it is.
std::string registered_class(std::string_view model_type);

/// What a name stands for: some classes have several.
std::string class_behind(std::string_view name);

/// Whether the class brings components of its own that nobody has needed here. Without them, ids
/// would be others.
bool is_unsupported_class(std::string_view name);

}  // namespace lorry::tokenizer

// Tokenizer classes of `transformers` that bring components of their own, whatever tokenizer.json
// says.
#pragma once

#include <map>
#include <string>

#include "tokenizer/tokenizer_config.h"

namespace lorry::tokenizer {

/// The class that AutoTokenizer settles on, "" where it takes tokenizer.json as it is. Fails with
/// unsupported if the class has components of its own that are not known here.
Result<std::string> choose_class(const TokenizerParts& parts);

/// The components of such a class. `special_tokens_map`: name to content.
void set_class_components(const TokenizerParts& parts, const Json& special_tokens_map,
                          TokenizerPlan& plan);

/// What the class fills in where the configuration is silent: name ("bos_token") to content.
std::map<std::string, std::string> default_tokens(const std::string& tokenizer_class);

/// Special tokens without a name that the class adds to those of the configuration, which has
/// `extra` ones.
std::vector<std::string> class_extra_tokens(const std::string& tokenizer_class, const Json& config,
                                            const std::vector<std::string>& extra);

}  // namespace lorry::tokenizer

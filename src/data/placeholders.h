// {{name}} in the strings of a data set, filled with --set.
#pragma once

#include <set>
#include <string>

#include "data/row_rules.h"

namespace lorry::data {

/// The text with each {{name}} of `known` replaced, spaces inside the braces allowed. Names that
/// are not known are added to `unknown` and stay; those that were replaced are added to `filled`.
std::string fill_placeholders(std::string text, const NamedValues& known,
                              std::set<std::string>& unknown, std::set<std::string>& filled);

}  // namespace lorry::data

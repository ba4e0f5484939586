// The tables of filters, by name.
#pragma once

#include <map>
#include <string_view>

#include "jinja/interp.h"

namespace lorry::jinja {

using FilterTable = std::map<std::string_view, FilterFn>;
const FilterTable& text_filters();
const FilterTable& sequence_filters();

}  // namespace lorry::jinja

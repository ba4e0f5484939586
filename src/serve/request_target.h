// The target of an HTTP request, as clients write it.
#pragma once

#include <string>
#include <string_view>

namespace lorry::serve {

/// The path of a request's target: "/v1/models" from "http://host//v1/models/?a=b". Escapes stay.
std::string path_of(std::string_view target);

/// "a b" from "a%20b"; a broken escape stays as it is.
std::string percent_decode(std::string_view text);

}  // namespace lorry::serve

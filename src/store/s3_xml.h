// The little XML that S3 speaks: flat elements, no attributes that matter.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lorry::store {

/// The raw content of each element `name` of `xml`, in order, at any depth, nested ones of the same
/// name excluded. A prefix before a colon and attributes are passed over.
std::vector<std::string_view> xml_elements(std::string_view xml, std::string_view name);
/// The text of the first one, entities replaced; nullopt if there is none.
std::optional<std::string> xml_text(std::string_view xml, std::string_view name);
/// &, <, > and quotes as entities.
std::string xml_escape(std::string_view text);

}  // namespace lorry::store

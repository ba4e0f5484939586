#include "store/owner.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace lorry::store {

Result<> check_owner(const std::string& dir, const Json& info, const std::string& model,
                     const std::string& dataset) {
  const std::string owner = info.value("model", model), other = info.value("dataset", dataset);
  if (owner == model && other == dataset) return {};
  return invalid_input(fmt::format(
      "{} belongs to the model {} and the data set {}, whose names together are those of {} and "
      "{}; import one of them under another name",
      dir, owner, other, model, dataset));
}

}  // namespace lorry::store

// Which variables lorry reads, for those who would like to know whether theirs is one of them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/settings.h"

namespace lorry::cli {

/// A variable that is set, and where: "the environment" or ".env line 3".
struct NamedSetting {
  std::string name, origin;
};

/// Set, not empty, and read by lorry. Names only: values may be secrets.
std::vector<NamedSetting> used_settings(const Settings& settings);

struct UnknownSetting {
  std::string name, origin;
  std::string meant;  ///< the nearest name that lorry reads; empty if none is near
};

/// Variables called LORRY_* that no verb reads, and lines of .env that nothing reads: misspelt,
/// most likely.
std::vector<UnknownSetting> unknown_settings(const Settings& settings);

}  // namespace lorry::cli

// Stop strings, found across the borders of tokens.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lorry::generate {

/// Text goes in piece by piece; what comes out can no longer become part of a stop string.
/// Not thread-safe.
class StopMatcher {
 public:
  /// `include`: the stop string that was found is emitted, else it is not.
  explicit StopMatcher(std::vector<std::string> stops, bool include = false);

  /// The text that may be emitted now. Once `stopped`, everything else is swallowed.
  std::string push(std::string_view text);
  /// What was held back, when generation ended for another reason.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  bool include_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace lorry::generate

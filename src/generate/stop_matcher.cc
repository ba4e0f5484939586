#include "generate/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace lorry::generate {
namespace {

/// Length of the longest end of `text` that begins `stop`, shorter than `stop` itself.
size_t partial_match(std::string_view text, std::string_view stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.ends_with(stop.substr(0, n))) return n;
  }
  return 0;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include)
    : stops_(std::move(stops)), include_(include) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string StopMatcher::push(std::string_view text) {
  if (stopped_) return {};
  if (stops_.empty()) return std::string(text);
  held_ += text;
  size_t found = std::string::npos;
  size_t keep = 0, length = 0;
  for (const std::string& stop : stops_) {
    if (const size_t at = held_.find(stop); at < found) {
      found = at;
      length = stop.size();
    }
    keep = std::max(keep, partial_match(held_, stop));
  }
  if (found != std::string::npos) {
    stopped_ = true;
    std::string out = held_.substr(0, found + (include_ ? length : 0));
    held_.clear();
    return out;
  }
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string StopMatcher::finish() {
  if (stopped_) return {};
  return std::exchange(held_, {});
}

}  // namespace lorry::generate

#include "train/options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <type_traits>

namespace lorry::train {
namespace {

/// Checks one value after another until one is wrong.
struct Checker {
  Result<> result;

  void operator()(const OptionSpec& spec, const auto& value) {
    if (!result.ok()) return;
    using Value = std::remove_cvref_t<decltype(value)>;
    if constexpr (std::is_arithmetic_v<Value> && !std::is_same_v<Value, bool>) {
      if (!spec.range.contains(static_cast<double>(value))) {
        result = usage_error(fmt::format("{} must be {}{}{}", spec.flag, spec.range.describe(),
                                         spec.unit.empty() ? "" : " ", spec.unit));
      }
    } else if constexpr (std::is_same_v<Value, std::string>) {
      check_choice(spec, value);
    } else if constexpr (std::is_same_v<Value, std::vector<std::string>>) {
      for (const std::string& item : value) check_choice(spec, item);
    }
  }

  void check_choice(const OptionSpec& spec, const std::string& value) {
    const auto& choices = spec.choices;
    if (choices.empty() || std::find(choices.begin(), choices.end(), value) != choices.end())
      return;
    result = usage_error(
        fmt::format("{}: '{}' is not one of {}", spec.flag, value, fmt::join(choices, ", ")));
  }
};

/// The flags of kNewAdapter that have another value than a new TrainOptions.
std::vector<std::string> changed_new_adapter_flags(const TrainOptions& options) {
  const auto values = [](const TrainOptions& o) {
    std::vector<std::pair<std::string, Json>> pairs;
    visit_options(o, [&](const OptionSpec& spec, const auto& value) {
      if (spec.decides == Decides::kNewAdapter) pairs.emplace_back(spec.flag, Json(value));
    });
    return pairs;
  };
  const auto now = values(options), fresh = values(TrainOptions());
  std::vector<std::string> changed;
  for (size_t i = 0; i < now.size(); ++i) {
    if (now[i].second != fresh[i].second) changed.push_back(now[i].first);
  }
  return changed;
}

}  // namespace

std::string OptionSpec::key() const {
  std::string key(flag.substr(2));
  std::replace(key.begin(), key.end(), '-', '_');
  return key;
}

Result<> check_options(const TrainOptions& o) {
  if (o.model.empty()) return usage_error("no model named; give --model or set MODEL_NAME");
  if (o.dataset.empty())
    return usage_error("no data set named; give --dataset or set DATASET_NAME");
  Checker checker;
  visit_options(o, checker);
  LORRY_TRY(std::move(checker.result));
  if (o.full && o.base_format != "dense") {
    return usage_error(fmt::format(
        "--full trains the weights that --base-format {} would freeze; leave out the one or the "
        "other",
        o.base_format));
  }
  if (o.adapter.empty()) return {};
  if (o.full) return usage_error("--full trains no adapter, so it cannot start from --adapter");
  const auto changed = changed_new_adapter_flags(o);
  if (!changed.empty()) return refused_beside_adapter(changed);
  return {};
}

Json result_options(const TrainOptions& options) {
  Json json = Json::object();
  visit_options(options, [&](const OptionSpec& spec, const auto& value) {
    const bool decides =
        spec.decides == Decides::kResult || (spec.decides != Decides::kNothing && !options.full);
    if (decides) json[spec.key()] = value;
  });
  const TrainOptions defaults;
  visit_options(defaults, [&](const OptionSpec& spec, const auto& value) {
    const auto stored = json.find(spec.key());
    if (spec.newer && stored != json.end() && *stored == Json(value)) json.erase(stored);
  });
  return json;
}

std::vector<std::string> new_adapter_flags() {
  std::vector<std::string> flags;
  const TrainOptions defaults;
  visit_options(defaults, [&](const OptionSpec& spec, const auto&) {
    if (spec.decides == Decides::kNewAdapter) flags.emplace_back(spec.flag);
  });
  return flags;
}

Error refused_beside_adapter(const std::vector<std::string>& flags) {
  return usage_error(
      fmt::format("{}: --adapter starts from an adapter that decides this itself; "
                  "leave out the one or the other",
                  fmt::join(flags, ", ")));
}

}  // namespace lorry::train

#include "train/identity.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <vector>

namespace lorry::train {
namespace {

constexpr const char *kOptions = "options", *kBatch = "batch_size",
                     *kMicroBatches = "gradient_accumulation_steps";

/// Digests of inputs: the words for one that differs, since the digest itself says nothing.
constexpr std::pair<std::string_view, std::string_view> kInputs[] = {
    {"base", "the base model changed"},
    {"data", "the data changed"},
    {"adapter", "the adapter to start from changed"}};

/// With the rows of a step in place of the two options that make them.
Json normalised(Json identity) {
  const auto options = identity.find(kOptions);
  if (options == identity.end() || !options->is_object()) return identity;
  const Json batch = options->value(kBatch, Json()), count = options->value(kMicroBatches, Json());
  if (!batch.is_number_integer() || !count.is_number_integer()) return identity;
  (*options)[kBatch] = batch.get<int64_t>() * count.get<int64_t>();
  options->erase(kMicroBatches);
  return identity;
}

void add_differences(const Json& before, const Json& now, std::vector<std::string>& out) {
  for (const auto& [key, value] : now.items()) {
    const auto old = before.find(key);
    if (old == before.end()) {
      out.push_back(fmt::format("{} was not given, is {}", key, dump_json(value)));
    } else if (*old != value) {
      out.push_back(fmt::format("{} was {}, is {}", key, dump_json(*old), dump_json(value)));
    }
  }
  for (const auto& [key, value] : before.items()) {
    if (!now.contains(key)) {
      out.push_back(fmt::format("{} was {}, is not given", key, dump_json(value)));
    }
  }
}

}  // namespace

bool same_run(const Json& before, const Json& now) { return normalised(before) == normalised(now); }

std::string identity_difference(const Json& before, const Json& now) {
  std::vector<std::string> differences;
  add_differences(before.value(kOptions, Json::object()), now.value(kOptions, Json::object()),
                  differences);
  for (const auto& [key, words] : kInputs) {
    if (before.value(key, Json()) != now.value(key, Json())) differences.emplace_back(words);
  }
  return fmt::format("{}", fmt::join(differences, "; "));
}

}  // namespace lorry::train

#include "train/identity.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <vector>

namespace lorry::train {
namespace {

constexpr const char *kOptions = "options", *kBatch = "batch_size",
                     *kMicroBatches = "gradient_accumulation_steps";

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
      out.push_back(key);
    } else if (value.is_object() && old->is_object()) {
      add_differences(*old, value, out);
    } else if (*old != value) {
      // Digests tell a reader nothing; options do.
      const bool is_digest = value.is_string() && value.get_ref<const std::string&>().size() == 64;
      out.push_back(is_digest
                        ? key
                        : fmt::format("{} was {}, is {}", key, dump_json(*old), dump_json(value)));
    }
  }
  for (const auto& [key, value] : before.items()) {
    if (!now.contains(key)) out.push_back(key);
  }
}

}  // namespace

bool same_run(const Json& before, const Json& now) { return normalised(before) == normalised(now); }

std::string identity_difference(const Json& before, const Json& now) {
  std::vector<std::string> differences;
  add_differences(before, now, differences);
  return fmt::format("{}", fmt::join(differences, "; "));
}

bool same_inputs(const Json& before, const Json& now) {
  const auto inputs = [](Json identity) {
    identity.erase(kOptions);
    return identity;
  };
  return inputs(before) == inputs(now);
}

}  // namespace lorry::train

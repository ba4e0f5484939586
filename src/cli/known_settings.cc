#include "cli/known_settings.h"

#include <unistd.h>  // __environ

#include <algorithm>
#include <set>
#include <string_view>

#include "cli/command.h"

namespace lorry::cli {
namespace {

/// What is read elsewhere than in a verb's own flags.
constexpr const char* kOthers[] = {"AWS_ACCESS_KEY_ID",
                                   "AWS_SECRET_ACCESS_KEY",
                                   "AWS_SESSION_TOKEN",
                                   "AWS_ENDPOINT_URL_S3",
                                   "AWS_ENDPOINT_URL",
                                   "AWS_REGION",
                                   "AWS_DEFAULT_REGION",
                                   "AWS_PROFILE",
                                   "AWS_SHARED_CREDENTIALS_FILE",
                                   "AWS_CONFIG_FILE",
                                   "AWS_ROLE_ARN",
                                   "AWS_ROLE_SESSION_NAME",
                                   "AWS_WEB_IDENTITY_TOKEN_FILE",
                                   "AWS_ENDPOINT_URL_STS",
                                   "AWS_ENDPOINT_URL_SSO",
                                   "AWS_EC2_METADATA_DISABLED",
                                   "GOOGLE_APPLICATION_CREDENTIALS",
                                   "AZURE_STORAGE_ACCOUNT",
                                   "AZURE_STORAGE_KEY",
                                   "AZURE_STORAGE_SAS_TOKEN",
                                   "AZURE_STORAGE_CONNECTION_STRING",
                                   "HF_TOKEN",
                                   "HUGGING_FACE_HUB_TOKEN",
                                   "HF_TOKEN_PATH",
                                   "HF_HOME",
                                   "HF_ENDPOINT",
                                   "HF_HUB_CACHE",
                                   "HF_HUB_OFFLINE",
                                   "HF_HUB_DISABLE_IMPLICIT_TOKEN",
                                   "TMPDIR",
                                   "CUDA_VISIBLE_DEVICES",
                                   "LORRY_ENGINE",
                                   "LORRY_HTTP_ATTEMPTS",
                                   "LORRY_HTTP_STALL_SECONDS",
                                   "LORRY_S3_ADDRESSING",
                                   "LORRY_S3_ANONYMOUS",
                                   "LORRY_GS_ANONYMOUS",
                                   "LORRY_CLAIM_SECONDS",
                                   "LORRY_PROFILE_STEP",
                                   "BUCKET_NAME",
                                   "LORRY_JSON",
                                   "LORRY_QUIET",
                                   "LORRY_VERBOSE"};

/// Read by ./dev, the tests, the benchmarks and sky/, not by the program.
constexpr const char* kDevelopment[] = {
    "LORRY_BUILD", "LORRY_SHARED",      "LORRY_PRESET",   "LORRY_JOBS",      "LORRY_VENV",
    "LORRY_BENCH", "LORRY_VERSITYGW",   "LORRY_FAULTS",   "LORRY_KILLS",     "LORRY_SANITIZE",
    "LORRY_WHEEL", "LORRY_WHEEL_PARTS", "LORRY_CUDA",     "LORRY_CUDA_VENV", "LORRY_SEEDS",
    "LORRY_SOAK",  "LORRY_TESTS",       "DATASET_SOURCE", "MODEL_SOURCE"};

template <size_t n>
bool is_one_of(const char* const (&names)[n], const std::string& name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

bool is_for_development(const std::string& name) {
  return is_one_of(kDevelopment, name) || name.starts_with("LORRY_BENCH_") ||
         name.starts_with("LORRY_GPU_") || name.starts_with("LORRY_TEST_");
}

std::set<std::string> read_names() {
  std::set<std::string> names(std::begin(kOthers), std::end(kOthers));
  for (const auto& verb : verbs()) {
    Flags flags(verb.name, verb.summary, verb.example);
    const auto command = verb.make();
    command->declare(flags);
    for (auto& name : flags.variables()) names.insert(std::move(name));
  }
  names.erase("");
  return names;
}

/// Names of the environment that begin with LORRY_, and all of .env.
std::set<std::string> names_to_judge(const Settings& settings) {
  std::set<std::string> names(settings.dotenv_names().begin(), settings.dotenv_names().end());
  for (char** entry = __environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view pair = *entry;
    if (pair.starts_with("LORRY_")) names.emplace(pair.substr(0, pair.find('=')));
  }
  return names;
}

}  // namespace

std::vector<NamedSetting> used_settings(const Settings& settings) {
  std::vector<NamedSetting> used;
  for (const auto& name : read_names())
    if (const auto found = settings.get(name)) used.push_back({name, found->origin});
  return used;
}

std::vector<UnknownSetting> unknown_settings(const Settings& settings) {
  auto names = names_to_judge(settings);
  std::erase_if(names, [](const auto& name) { return is_one_of(kOthers, name); });
  std::erase_if(names, is_for_development);
  if (names.empty()) return {};  // the usual case, in which no verb need be asked
  const auto known = read_names();
  std::vector<UnknownSetting> unknown;
  for (const auto& name : names) {
    if (known.contains(name)) continue;
    const auto found = settings.get(name);
    unknown.push_back({name, found ? found->origin : ".env",
                       nearest(name, {known.begin(), known.end()}).value_or("")});
  }
  return unknown;
}

}  // namespace lorry::cli

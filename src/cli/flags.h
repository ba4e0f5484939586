// The flags of one verb. A value comes from the command line, else from an environment variable,
// else from `.env`; all three are converted and checked here, so that every message names the flag
// or the variable, what is wrong and what would be right. CLI11 stays behind the .cc.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/range.h"
#include "base/result.h"
#include "base/settings.h"

namespace lorry::cli {

/// Declares flags, each bound to a field whose present value is the default. A flag `--max-steps`
/// is also the variable LORRY_MAX_STEPS, unless `variable` names another. Not thread-safe.
class Flags {
 public:
  Flags(std::string verb, std::string summary, std::string example);
  ~Flags();
  Flags(const Flags&) = delete;
  Flags& operator=(const Flags&) = delete;

  /// `value_name` is what help shows for the value: "NAME", "DIR".
  void text(const std::string& flag, std::string& target, const std::string& value_name,
            const std::string& help, const std::string& variable = {});
  /// The name of a data set or model in the bucket.
  void bucket_name(const std::string& flag, std::string& target, const std::string& help,
                   const std::string& variable = {});
  void choice(const std::string& flag, std::string& target, std::vector<std::string> choices,
              const std::string& help);
  /// A flag that is called `now` today: its old values are accepted, each as the value that it is
  /// paired with ({old, new}), with a warning that names the new flag. Not shown by --help.
  void former_choice(const std::string& flag, const std::string& now, std::string& target,
                     std::vector<std::pair<std::string, std::string>> values);
  void integer(const std::string& flag, int64_t& target, Range range, const std::string& help,
               const std::string& variable = {});
  void unsigned_integer(const std::string& flag, uint64_t& target, const std::string& help);
  void real(const std::string& flag, double& target, Range range, const std::string& help);
  /// `--flag`; on when given.
  void on(const std::string& flag, bool& target, const std::string& help);
  /// `--flag` / `--no-flag`.
  void toggle(const std::string& flag, bool& target, const std::string& help);
  /// A list separated by commas; the flag may be repeated.
  void list(const std::string& flag, std::vector<std::string>& target,
            const std::string& value_name, const std::string& help);
  /// `--flag name=value`, repeated; with `commas` also `a=b,c=d`.
  void pairs(const std::string& flag, std::vector<std::pair<std::string, std::string>>& target,
             bool commas, const std::string& value_name, const std::string& help);
  /// One argument without a flag, or (for a vector) as many as there are.
  void positional(const std::string& name, std::string& target, const std::string& help);
  void positional(const std::string& name, std::vector<std::string>& target, bool required,
                  const std::string& help);
  /// An option of memory or bytes: 512MB, 2GiB, 1000.
  void bytes(const std::string& flag, int64_t& target, Range range, const std::string& help);

  /// Reads `args` (without program and verb), then the variables. Usage errors name the culprit; a
  /// misspelt flag gets a suggestion. False: help was asked for.
  Result<bool> parse(std::vector<std::string> args, const Settings& settings);

  /// Where the flag's value came from: "--flag", "DATASET_NAME in .env line 2"; nullopt: default.
  std::optional<std::string> origin(const std::string& flag) const;
  bool given(const std::string& flag) const { return origin(flag).has_value(); }

  std::string help() const;
  /// Every variable that this verb reads.
  std::vector<std::string> variables() const;

 private:
  using Assign = std::function<Result<>(const std::vector<std::string>& values)>;
  struct Impl;
  void add(const std::string& flag, const std::string& value_name, const std::string& help,
           const std::string& default_text, const std::string& variable, Assign assign);
  std::unique_ptr<Impl> impl_;
};

/// A usage error unless `name` can be a data set or model in a bucket: parts between single
/// slashes, none hidden, none but the first a number (shards are named so).
Result<> check_bucket_name(const std::string& name);

/// The candidate nearest to `word`, if it is near enough to be meant.
std::optional<std::string> nearest(const std::string& word,
                                   const std::vector<std::string>& candidates);

}  // namespace lorry::cli

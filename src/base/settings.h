// Options that come from outside the command line: the environment, then `.env` of the working
// directory. Flags go before both; cli/flags.h joins the three.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace lorry {

/// One line of a `.env` file.
struct DotenvLine {
  std::string name, value;
  int line = 0;  ///< counted from 1
};

/// Parses a `.env` file: `NAME=value`, `export NAME=value`, blank lines and `#` comments. A value
/// in single quotes is taken as it stands; in double quotes \n \t \" \\ are escapes; an unquoted
/// one ends before ` #`. Nothing is interpolated. The error names `what` and the line, and never
/// shows a value, which may be a secret.
Result<std::vector<DotenvLine>> parse_dotenv(std::string_view text, std::string_view what);

/// A value and where it was found, for messages.
struct Setting {
  std::string value;
  std::string origin;  ///< "the environment" or ".env line 3"
};

/// Immutable after loading, hence thread-safe.
class Settings {
 public:
  /// Reads the process environment and `{directory}/.env`, which need not exist.
  static Result<Settings> load(const std::string& directory);

  /// The variable's value, the environment before `.env`; empty ones count as unset.
  std::optional<Setting> get(const std::string& name) const;

  /// Puts the values of `.env` into the process's environment where it has none: libraries and the
  /// store read their credentials there. Before any thread is started.
  void export_dotenv() const;

  /// Names in `.env`, in order.
  const std::vector<std::string>& dotenv_names() const { return dotenv_names_; }

 private:
  std::map<std::string, std::string> environment_;
  std::map<std::string, DotenvLine> dotenv_;
  std::vector<std::string> dotenv_names_;
};

}  // namespace lorry

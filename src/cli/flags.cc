#include "cli/flags.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "base/log.h"

namespace lorry::cli {
namespace {

/// "--max-steps" is LORRY_MAX_STEPS.
std::string variable_of(const std::string& flag) {
  std::string name = "LORRY_" + flag.substr(flag.find_first_not_of('-'));
  for (char& c : name) c = c == '-' ? '_' : static_cast<char>(std::toupper(c));
  return name;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

template <typename T>
std::optional<T> parse_number(const std::string& text) {
  T value{};
  const char* begin = text.c_str() + (text.starts_with('+') ? 1 : 0);
  const auto [end, error] = std::from_chars(begin, text.c_str() + text.size(), value);
  if (error != std::errc() || end != text.c_str() + text.size() || begin == end)
    return std::nullopt;
  return value;
}

Result<> check_range(double value, const std::string& text, const Range& range) {
  if (range.contains(value)) return {};
  return usage_error(fmt::format("{} is out of range; it must be {}", text, range.describe()));
}

Result<bool> parse_bool(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) { return std::tolower(c); });
  if (text == "1" || text == "true" || text == "yes" || text == "on") return true;
  if (text == "0" || text == "false" || text == "no" || text == "off") return false;
  return usage_error(fmt::format("'{}' is neither true nor false", text));
}

Result<int64_t> parse_bytes(const std::string& text) {
  static const std::vector<std::pair<std::string, double>> kUnits = {
      {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"KB", 1e3},
      {"kB", 1e3},      {"MB", 1e6},      {"GB", 1e9},      {"K", 1 << 10},
      {"M", 1 << 20},   {"G", 1 << 30},   {"B", 1}};
  std::string number = text;
  double scale = 1;
  for (const auto& [suffix, factor] : kUnits) {
    if (!text.ends_with(suffix)) continue;
    number = text.substr(0, text.size() - suffix.size());
    scale = factor;
    break;
  }
  const auto value = parse_number<double>(number);
  if (!value || !(*value >= 0) || *value * scale > 9e18)
    return usage_error(fmt::format("'{}' is not a size such as 512MB or 2GiB", text));
  return static_cast<int64_t>(*value * scale);
}

Result<std::pair<std::string, std::string>> parse_pair(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    return usage_error(fmt::format("'{}' is not name=value", text));
  return std::pair{text.substr(0, equals), text.substr(equals + 1)};
}

/// Damerau-Levenshtein distance with adjacent swaps.
size_t distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min(
          {d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

std::optional<std::string> nearest(const std::string& word,
                                   const std::vector<std::string>& candidates) {
  std::optional<std::string> best;
  size_t best_distance = std::max<size_t>(2, word.size() / 4) + 1;
  for (const auto& candidate : candidates) {
    const size_t d = distance(word, candidate);
    if (d < best_distance) best_distance = d, best = candidate;
  }
  return best;
}

Result<> check_bucket_name(const std::string& name) {
  const auto wrong = [&name](const char* why) {
    return usage_error(fmt::format("'{}' cannot be a name in the bucket: {}", name, why));
  };
  if (name.find('@') != std::string::npos) return wrong("@ stands before a run's name");
  size_t begin = 0;
  while (begin <= name.size()) {
    const size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part(name.data() + begin, end - begin);
    if (part.empty()) return wrong("a part between slashes is empty");
    if (part.starts_with('.')) return wrong("a part begins with a dot");
    if (std::any_of(part.begin(), part.end(), [](unsigned char c) { return c < 32 || c == 127; }))
      return wrong("it has control characters");
    // raw/logs/7 is shard 7 of logs.
    if (begin > 0 && std::all_of(part.begin(), part.end(), ::isdigit))
      return wrong("a part behind a slash is a number, as shards are named");
    begin = end + 1;
  }
  return {};
}

struct Flags::Impl {
  struct Option {
    std::string flag, variable;
    CLI::Option* option;
    Assign assign;
    bool required = false;
    std::string origin = {};
  };
  std::string verb;
  CLI::App app;
  std::vector<Option> options;

  Result<> unknown(const std::string& word) const {
    std::vector<std::string> names = {"--help"};
    for (const auto& option : options)
      for (const auto& name : option.option->get_lnames()) names.push_back("--" + name);
    const std::string bare = word.substr(0, word.find('='));
    if (!bare.starts_with("-"))
      return usage_error(fmt::format("unexpected argument '{}'; see lorry {} --help", word, verb));
    const auto meant = nearest(bare, names);
    return usage_error(fmt::format("unknown flag {}; {}", bare,
                                   meant ? fmt::format("did you mean {}?", *meant)
                                         : fmt::format("see lorry {} --help", verb)));
  }
};

Flags::Flags(std::string verb, std::string summary, std::string example)
    : impl_(std::make_unique<Impl>()) {
  impl_->verb = verb;
  CLI::App& app = impl_->app;
  app.name("lorry " + verb);
  app.description(std::move(summary));
  app.footer(
      "Example:\n" + example +
      "\n\nA flag --some-option is also the variable LORRY_SOME_OPTION, in the environment or "
      "in .env.");
  app.allow_extras();
  app.get_formatter()->column_width(36);
  app.get_formatter()->label("OPTIONS", "flags");
  app.set_help_flag("-h,--help", "show this help");
}

Flags::~Flags() = default;

void Flags::add(const std::string& flag, const std::string& value_name, const std::string& help,
                const std::string& default_text, const std::string& variable, Assign assign) {
  const bool takes_value = !value_name.empty();
  const bool positional = !flag.starts_with('-');
  CLI::Option* option =
      takes_value ? impl_->app.add_option(flag, help) : impl_->app.add_flag(flag, help);
  if (takes_value) {
    option->type_name(positional ? "" : value_name);
    if (!default_text.empty()) option->default_str(default_text);
    if (!positional) option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  }
  const std::string name = flag.substr(0, flag.find(','));
  impl_->options.push_back({.flag = name,
                            .variable = positional         ? ""
                                        : variable.empty() ? variable_of(name)
                                                           : variable,
                            .option = option,
                            .assign = std::move(assign),
                            .required = positional});
}

void Flags::text(const std::string& flag, std::string& target, const std::string& value_name,
                 const std::string& help, const std::string& variable) {
  add(flag, value_name, help, target, variable, [&target](const auto& values) -> Result<> {
    target = values.back();
    return {};
  });
}

void Flags::bucket_name(const std::string& flag, std::string& target, const std::string& help,
                        const std::string& variable) {
  add(flag, "NAME", help, target, variable, [&target](const auto& values) -> Result<> {
    if (!values.back().empty()) LORRY_TRY(check_bucket_name(values.back()));
    target = values.back();
    return {};
  });
}

void Flags::choice(const std::string& flag, std::string& target, std::vector<std::string> choices,
                   const std::string& help) {
  const std::string names = fmt::format("{}", fmt::join(choices, "|"));
  add(flag, names, help, target, {}, [&target, choices](const auto& values) -> Result<> {
    const auto& value = values.back();
    if (std::find(choices.begin(), choices.end(), value) == choices.end())
      return usage_error(fmt::format("'{}' is not one of {}", value, fmt::join(choices, ", ")));
    target = value;
    return {};
  });
}

void Flags::former_choice(const std::string& flag, const std::string& now, std::string& target,
                          std::vector<std::pair<std::string, std::string>> values) {
  add(flag, "NAME", "", "", {}, [=, &target](const auto& given) -> Result<> {
    for (const auto& [before, value] : values) {
      if (before != given.back()) continue;
      log::warn("{} {} is now {} {}", flag, before, now, value);
      target = value;
      return {};
    }
    return usage_error(
        fmt::format("'{}' is not one of its values; its name is now {}", given.back(), now));
  });
  impl_->options.back().option->group("");  // CLI11: hidden
}

void Flags::integer(const std::string& flag, int64_t& target, Range range, const std::string& help,
                    const std::string& variable) {
  add(flag, "N", help, std::to_string(target), variable,
      [&target, range](const auto& values) -> Result<> {
        const auto value = parse_number<int64_t>(values.back());
        if (!value) return usage_error(fmt::format("'{}' is not a whole number", values.back()));
        LORRY_TRY(check_range(static_cast<double>(*value), values.back(), range));
        target = *value;
        return {};
      });
}

void Flags::unsigned_integer(const std::string& flag, uint64_t& target, const std::string& help) {
  add(flag, "N", help, std::to_string(target), {}, [&target](const auto& values) -> Result<> {
    const auto value = parse_number<uint64_t>(values.back());
    if (!value)
      return usage_error(fmt::format("'{}' is not a whole number of 0 or more", values.back()));
    target = *value;
    return {};
  });
}

void Flags::real(const std::string& flag, double& target, Range range, const std::string& help) {
  add(flag, "X", help, fmt::format("{}", target), {},
      [&target, range](const auto& values) -> Result<> {
        const auto value = parse_number<double>(values.back());
        if (!value || !std::isfinite(*value))
          return usage_error(fmt::format("'{}' is not a number", values.back()));
        LORRY_TRY(check_range(*value, values.back(), range));
        target = *value;
        return {};
      });
}

void Flags::bytes(const std::string& flag, int64_t& target, Range range, const std::string& help) {
  add(flag, "SIZE", help, fmt::format("{}MiB", target >> 20), {},
      [&target, range](const auto& values) -> Result<> {
        LORRY_ASSIGN(const int64_t value, parse_bytes(values.back()));
        LORRY_TRY(check_range(static_cast<double>(value), values.back(), range));
        target = value;
        return {};
      });
}

void Flags::on(const std::string& flag, bool& target, const std::string& help) {
  add(flag, "", help, "", {}, [&target](const auto& values) -> Result<> {
    LORRY_ASSIGN(target, parse_bool(values.back()));
    return {};
  });
}

void Flags::toggle(const std::string& flag, bool& target, const std::string& help) {
  add(flag + ",!--no-" + flag.substr(2), "",
      help + (target ? " (on by default)" : " (off by default)"), "", {},
      [&target](const auto& values) -> Result<> {
        LORRY_ASSIGN(target, parse_bool(values.back()));
        return {};
      });
}

void Flags::list(const std::string& flag, std::vector<std::string>& target,
                 const std::string& value_name, const std::string& help) {
  add(flag, value_name, help, fmt::format("{}", fmt::join(target, ",")), {},
      [&target](const auto& values) -> Result<> {
        target.clear();
        for (const auto& value : values)
          for (auto& part : split(value, ',')) target.push_back(std::move(part));
        return {};
      });
}

void Flags::pairs(const std::string& flag, std::vector<std::pair<std::string, std::string>>& target,
                  bool commas, const std::string& value_name, const std::string& help) {
  add(flag, value_name, help, "", {}, [&target, commas](const auto& values) -> Result<> {
    target.clear();
    for (const auto& value : values) {
      for (const auto& part : commas ? split(value, ',') : std::vector<std::string>{value}) {
        LORRY_ASSIGN(auto pair, parse_pair(part));
        target.push_back(std::move(pair));
      }
    }
    return {};
  });
}

void Flags::positional(const std::string& name, std::string& target, const std::string& help) {
  add(name, name, help, "", {}, [&target](const auto& values) -> Result<> {
    target = values.back();
    return {};
  });
}

void Flags::positional(const std::string& name, std::vector<std::string>& target, bool required,
                       const std::string& help) {
  add(name, name, help, "", {}, [&target](const auto& values) -> Result<> {
    target = values;
    return {};
  });
  impl_->options.back().option->expected(0, -1)->allow_extra_args();
  impl_->options.back().required = required;
}

Result<bool> Flags::parse(std::vector<std::string> args, const Settings& settings) {
  std::reverse(args.begin(), args.end());  // as CLI11 wants them
  try {
    impl_->app.parse(args);
  } catch (const CLI::CallForHelp&) {
    return false;
  } catch (const CLI::ArgumentMismatch& e) {
    // CLI11 says "--steps: 1 required N missing".
    const std::string what = e.what();
    return usage_error(fmt::format("{} needs a value; see lorry {} --help",
                                   what.substr(0, what.find(':')), impl_->verb));
  } catch (const CLI::ParseError& e) {
    return usage_error(e.what());
  }
  if (const auto extra = impl_->app.remaining(); !extra.empty()) {
    // A misspelt flag leaves its value behind as well; the flag is the culprit.
    const auto flag = std::find_if(extra.begin(), extra.end(),
                                   [](const auto& word) { return word.starts_with('-'); });
    LORRY_TRY(impl_->unknown(flag == extra.end() ? extra.front() : *flag));
  }
  for (auto& option : impl_->options) {
    std::vector<std::string> values;
    if (option.option->count() > 0) {
      values = option.option->results();
      option.origin = option.flag;
    } else if (!option.variable.empty()) {
      if (const auto setting = settings.get(option.variable)) {
        values = {setting->value};
        option.origin = fmt::format("{} in {}", option.variable, setting->origin);
      }
    }
    if (values.empty()) {
      if (option.required)
        return usage_error(
            fmt::format("{} is missing; see lorry {} --help", option.flag, impl_->verb));
      continue;
    }
    LORRY_TRY(option.assign(values).with_context(option.origin));
  }
  return true;
}

std::optional<std::string> Flags::origin(const std::string& flag) const {
  for (const auto& option : impl_->options)
    if (option.flag == flag && !option.origin.empty()) return option.origin;
  return std::nullopt;
}

std::string Flags::help() const {
  std::string text = impl_->app.help();
  // CLI11 shows what a negated flag assigns; the help of a toggle says it in words.
  static constexpr std::string_view kNoise = "{false}";
  for (size_t at; (at = text.find(kNoise)) != std::string::npos;) text.erase(at, kNoise.size());
  return text;
}

std::vector<std::string> Flags::variables() const {
  std::vector<std::string> names;
  for (const auto& option : impl_->options)
    if (!option.variable.empty()) names.push_back(option.variable);
  return names;
}

}  // namespace lorry::cli

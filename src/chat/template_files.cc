#include "chat/template_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace lorry::chat {
namespace {

constexpr char kDefault[] = "default", kToolUse[] = "tool_use";

using Named = std::map<std::string, std::string>;  // sources by name

std::string additional_file(const std::string& name) {
  return "additional_chat_templates/" + name + ".jinja";
}

// A template as configurations write it: a string, or a list of {name, template}, or {name:
// source}.
Named read_named(const Json& value) {
  Named out;
  const auto take = [&](const Json& name, const Json& source) {
    if (name.is_string() && source.is_string()) out[name.get<std::string>()] = source;
  };
  if (value.is_object()) {
    for (const auto& [name, source] : value.items()) take(name, source);
  } else if (value.is_array()) {
    for (const Json& item : value) {
      if (item.is_object()) take(item.value("name", Json()), item.value("template", Json()));
    }
  } else {
    take(kDefault, value);
  }
  return out;
}

Result<Named> from_json_file(const ReadFile& read_file, std::string_view name) {
  LORRY_ASSIGN(const auto text, read_file(name));
  if (!text) return Named();
  LORRY_ASSIGN(const Json json, parse_json(*text, name));
  if (!json.is_object() || !json.contains("chat_template")) return Named();
  return read_named(json["chat_template"]);
}

/// The file names' templates that are asked for.
Result<Named> from_jinja_files(const ReadFile& read_file, const std::string& name) {
  Named out;
  LORRY_ASSIGN(auto plain, read_file("chat_template.jinja"));
  if (plain) out[kDefault] = std::move(*plain);
  for (const std::string& each : {std::string(kToolUse), name}) {
    if (each.empty()) continue;
    LORRY_ASSIGN(auto source, read_file(additional_file(each)));
    if (source) out[each] = std::move(*source);
  }
  return out;
}

Result<Named> find_all(const ReadFile& read_file, const std::string& name) {
  LORRY_ASSIGN(Named out, from_jinja_files(read_file, name));
  for (const char* file : {"tokenizer_config.json", "chat_template.json"}) {
    if (out.contains(kDefault) || out.contains(kToolUse) || out.contains(name)) break;
    LORRY_ASSIGN(out, from_json_file(read_file, file));
  }
  return out;
}

}  // namespace

Result<TemplateSources> find_templates(const ReadFile& read_file, const std::string& name) {
  if (name.find_first_of("/\\") != name.npos)
    return invalid_input(fmt::format("'{}' is no name of a chat template", name));
  LORRY_ASSIGN(Named all, find_all(read_file, name));
  if (name.empty()) return TemplateSources{all[kDefault], all[kToolUse]};
  if (const auto found = all.find(name); found != all.end())
    return TemplateSources{found->second, ""};
  std::vector<std::string> names;
  for (const auto& [known, source] : all) names.push_back(known);
  return not_found(fmt::format("the model has no chat template of the name {}; it has {}", name,
                               names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "))));
}

}  // namespace lorry::chat

#include "tokenizer/post_processor.h"

#include <nlohmann/json.hpp>

#include "tokenizer/pattern.h"

namespace lorry::tokenizer {
namespace {

/// Puts one processor's ids around what the ones before it have put there.
struct Wrapper {
  PostProcessor& out;
  bool after_template = false;

  void wrap(const std::vector<int32_t>& before, const std::vector<int32_t>& after) {
    out.before.insert(out.before.begin(), before.begin(), before.end());
    out.after.insert(out.after.end(), after.begin(), after.end());
  }
};

Result<int32_t> id_of_pair(const Json& json, const char* name, const std::string& where) {
  const auto it = json.find(name);  // ["</s>", 2]
  if (it == json.end() || !it->is_array() || it->size() != 2 || !(*it)[1].is_number_integer()) {
    return invalid_input(where + ": no [token, id] '" + name + "'");
  }
  return (*it)[1].get<int32_t>();
}

/// The ids that a template's special token stands for.
Result<std::vector<int32_t>> template_ids(const Json& json, const std::string& token,
                                          const std::string& where) {
  const auto map = json.find("special_tokens");
  if (map != json.end() && map->is_object()) {
    if (const auto entry = map->find(token); entry != map->end() && entry->is_object()) {
      if (const auto ids = entry->find("ids"); ids != entry->end() && ids->is_array()) {
        std::vector<int32_t> out;
        for (const Json& id : *ids) {
          if (!id.is_number_integer()) return invalid_input(where + ": an id is not a number");
          out.push_back(id.get<int32_t>());
        }
        return out;
      }
    }
  }
  return invalid_input(where + ": no ids for '" + token + "' in special_tokens");
}

Result<> add_template(Wrapper& wrapper, const Json& json, const std::string& where) {
  const auto single = json.find("single");
  if (single == json.end() || !single->is_array()) {
    return invalid_input(where + ": no list 'single'");
  }
  std::vector<int32_t> before, after;
  int texts = 0;
  for (const Json& piece : *single) {
    if (piece.contains("Sequence")) {
      const Json& sequence = piece["Sequence"];
      if (!sequence.is_object() || sequence.value("id", Json("A")) != "A") {
        return unsupported(where + ": a second text in 'single' is not supported");
      }
      ++texts;
      continue;
    }
    if (!piece.contains("SpecialToken") || !piece["SpecialToken"].is_object()) {
      return unsupported(where + ": " + dump_json(piece) + " in 'single' is not supported");
    }
    LORRY_ASSIGN(const std::string token, string_field(piece["SpecialToken"], "id", where));
    LORRY_ASSIGN(const std::vector<int32_t> ids, template_ids(json, token, where));
    auto& side = texts == 0 ? before : after;
    side.insert(side.end(), ids.begin(), ids.end());
  }
  if (texts != 1) return unsupported(where + ": 'single' does not hold the text once");
  wrapper.wrap(before, after);
  return {};
}

Result<> add(Wrapper& wrapper, const Json& json) {
  const std::string type = type_of(json);
  const std::string where = "tokenizer.json: post_processor " + type;
  if (type == "ByteLevel") return {};  // trims the peer's offsets; no ids
  if (type == "Sequence") {
    const auto list = json.find("processors");
    if (list == json.end() || !list->is_array()) {
      return invalid_input(where + ": no list 'processors'");
    }
    for (const Json& item : *list) LORRY_TRY(add(wrapper, item));
    return {};
  }
  if (wrapper.after_template) {
    return unsupported(where + " behind TemplateProcessing is not supported");
  }
  if (type == "TemplateProcessing") {
    wrapper.after_template = true;
    return add_template(wrapper, json, where);
  }
  if (type == "RobertaProcessing" || type == "BertProcessing") {
    LORRY_ASSIGN(const int32_t cls, id_of_pair(json, "cls", where));
    LORRY_ASSIGN(const int32_t sep, id_of_pair(json, "sep", where));
    wrapper.wrap({cls}, {sep});
    return {};
  }
  return unsupported("tokenizer.json: post_processor '" + type + "' is not supported");
}

}  // namespace

Result<PostProcessor> PostProcessor::parse(const Json& json) {
  PostProcessor out;
  Wrapper wrapper{out};
  if (!json.is_null()) LORRY_TRY(add(wrapper, json));
  return out;
}

}  // namespace lorry::tokenizer

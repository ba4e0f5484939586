// tokenizer.json and its companions into a Tokenizer.
#include <simdjson.h>

#include <algorithm>

#include "base/digest.h"
#include "tokenizer/model_load.h"
#include "tokenizer/pattern.h"
#include "tokenizer/tokenizer_config.h"
#include "tokenizer/tokenizer_impl.h"

namespace lorry::tokenizer {
namespace {

namespace dom = simdjson::dom;

Error bad_json(std::string_view what) {
  return invalid_input("tokenizer.json: " + std::string(what));
}

/// A small part of the document as Json; null if it is not there.
Result<Json> part(const dom::object& root, const char* name) {
  dom::element element;
  if (root[name].get(element)) return Json();
  return parse_json(simdjson::minify(element), std::string("tokenizer.json: ") + name);
}

Result<Json> companion(std::string_view text, const char* name) {
  if (text.empty()) return Json();
  return parse_json(text, name);
}

Result<TokenizerParts> read_parts(const dom::object& root, const TokenizerFiles& files) {
  TokenizerParts parts;
  LORRY_ASSIGN(parts.added_tokens, part(root, "added_tokens"));
  LORRY_ASSIGN(parts.normalizer, part(root, "normalizer"));
  LORRY_ASSIGN(parts.pre_tokenizer, part(root, "pre_tokenizer"));
  LORRY_ASSIGN(parts.post_processor, part(root, "post_processor"));
  LORRY_ASSIGN(parts.decoder, part(root, "decoder"));
  LORRY_ASSIGN(parts.config, companion(files.tokenizer_config_json, "tokenizer_config.json"));
  LORRY_ASSIGN(parts.special_tokens_map,
               companion(files.special_tokens_map_json, "special_tokens_map.json"));
  LORRY_ASSIGN(parts.model_config, companion(files.model_config_json, "config.json"));
  if (!parts.added_tokens.is_null() && !parts.added_tokens.is_array()) {
    return bad_json("added_tokens is not a list");
  }
  return parts;
}

/// What decides ids: tokenizer.json without its white space, and what the configuration adds.
std::string digest_of(const dom::element& document, const TokenizerPlan& plan,
                      const AddedTokens& added) {
  Json more = {{"class", plan.tokenizer_class}, {"split_special", plan.split_special_tokens}};
  for (const auto& [id, t] : added.all()) {
    more["added"].push_back(
        {id, t.content, t.single_word, t.lstrip, t.rstrip, t.normalized, t.special});
  }
  Sha256 hash;
  hash.update(simdjson::minify(document));
  hash.update("\n");
  hash.update(dump_json(more));
  return hash.hex();
}

}  // namespace

Result<std::unique_ptr<Tokenizer::Impl>> Tokenizer::Impl::load(const TokenizerFiles& files) {
  dom::parser parser;
  dom::element document;
  if (const auto error =
          parser.parse(files.tokenizer_json.data(), files.tokenizer_json.size()).get(document)) {
    return bad_json(std::string("not JSON: ") + simdjson::error_message(error));
  }
  dom::object root, model;
  if (document.get(root)) return bad_json("not an object");
  if (root["model"].get(model)) return bad_json("no object 'model'");
  LORRY_TRY(check_model(model));
  LORRY_ASSIGN(TokenizerParts parts, read_parts(root, files));
  parts.model_type = model_type(model);
  LORRY_ASSIGN(TokenizerPlan plan, plan_tokenizer(parts));

  auto t = std::make_unique<Impl>();
  LORRY_ASSIGN(t->normalizer, Normalizer::parse(plan.normalizer));
  LORRY_ASSIGN(t->pre_tokenizer,
               PreTokenizer::parse(plan.pre_tokenizer, parts.model_type == "BPE"));
  if (!plan.wrapper) {
    LORRY_ASSIGN(t->post_processor, PostProcessor::parse(plan.post_processor));
  }
  LORRY_ASSIGN(t->decoder, Decoder::parse(plan.decoder));
  LORRY_ASSIGN(t->model, load_model(model, plan.model, t->pre_tokenizer.byte_level()));
  for (AddedToken& token : plan.added_tokens) {
    t->added.add(std::move(token), *t->model,
                 [&](std::string_view text) { return t->normalizer.apply(text); });
  }
  t->added.build(plan.split_special_tokens);
  if (plan.wrapper) {
    LORRY_TRY(t->wrap(plan.wrapper->before, plan.special_tokens_map, t->post_processor.before));
    LORRY_TRY(t->wrap(plan.wrapper->after, plan.special_tokens_map, t->post_processor.after));
  }
  t->special_tokens_map = std::move(plan.special_tokens_map);
  t->fill_tables();
  t->digest = digest_of(document, plan, t->added);
  return t;
}

Result<> Tokenizer::Impl::wrap(const std::vector<std::string>& names, const Json& contents,
                               std::vector<int32_t>& ids) const {
  for (const std::string& name : names) {
    const auto content = contents.find(name);
    if (content == contents.end()) {
      return invalid_input("tokenizer_config.json: " + name + " is null, but its class puts it " +
                           "around every text");
    }
    const auto& token = content->get_ref<const std::string&>();
    std::optional<int32_t> id = added.find(token);
    if (!id) id = model->vocab().find(token);
    if (!id) return invalid_input("tokenizer.json: no id for the " + name + " '" + token + "'");
    ids.push_back(*id);
  }
  return {};
}

void Tokenizer::Impl::fill_tables() {
  int32_t last = added.all().empty() ? -1 : added.all().rbegin()->first;
  model->vocab().for_each([&](std::string_view, int32_t id) { last = std::max(last, id); });
  for (const auto& [id, token] : model->repeated()) last = std::max(last, id);
  const auto size = static_cast<size_t>(last + 1);
  tokens.resize(size);
  skipped.resize(size);
  model->vocab().for_each([&](std::string_view token, int32_t id) { tokens.set(id, token); });
  for (const auto& [id, token] : model->repeated()) tokens.set(id, token);
  for (const auto& [id, token] : added.all()) tokens.set(id, *added.text_of(id));
  if (decoder.byte_level()) bytes.resize(size);
  for (int32_t id = 0; id <= last; ++id) {
    if (!tokens.has(id)) continue;
    const std::string_view token = tokens.get(id);
    skipped[static_cast<size_t>(id)] = added.is_special_text(token);
    if (decoder.byte_level()) bytes.set(id, Decoder::token_bytes(token));
  }
}

}  // namespace lorry::tokenizer

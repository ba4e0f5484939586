// tokenizer.json and its companions into a Tokenizer.
#include <simdjson.h>

#include <algorithm>

#include "base/digest.h"
#include "text/pattern.h"
#include "text/tokenizer_config.h"
#include "text/tokenizer_impl.h"

namespace lorry::text {
namespace {

namespace dom = simdjson::dom;

constexpr int64_t kMaxId = 1 << 24;  // far above any vocabulary; keeps tables by id small

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

Result<TokenMap> read_vocab(const dom::object& model) {
  dom::object entries;
  if (model["vocab"].get(entries)) return bad_json("model: no object 'vocab'");
  TokenMap vocab;
  vocab.reserve(entries.size() == 0xFFFFFF ? 1 << 24 : entries.size());
  for (const auto& [token, value] : entries) {
    int64_t id = 0;
    if (value.get(id) || id < 0 || id > kMaxId) {
      return bad_json("model: the id of '" + std::string(token) + "' is not an id");
    }
    vocab.insert(token, static_cast<int32_t>(id));
  }
  return vocab;
}

/// "a b" or ["a", "b"].
Result<std::vector<Bpe::Merge>> read_merges(const dom::object& model) {
  dom::array list;
  if (model["merges"].get(list)) return bad_json("model: no list 'merges'");
  std::vector<Bpe::Merge> merges;
  merges.reserve(list.size());
  for (const dom::element item : list) {
    const std::string at = "model: merge " + std::to_string(merges.size());
    std::string_view left, right;
    dom::array pair;
    if (!item.get(left)) {
      const size_t space = left.find(' ');
      if (space == left.npos || left.find(' ', space + 1) != left.npos) {
        return bad_json(at + " is not two tokens with a space between");
      }
      right = left.substr(space + 1);
      left = left.substr(0, space);
    } else if (item.get(pair) || pair.size() != 2 || pair.at(0).get(left) ||
               pair.at(1).get(right)) {
      return bad_json(at + " is not a pair of tokens");
    }
    merges.emplace_back(left, right);
  }
  return merges;
}

std::string model_string(const dom::object& model, const char* name) {
  std::string_view value;
  return model[name].get(value) ? "" : std::string(value);
}

bool model_flag(const dom::object& model, const char* name) {
  bool value = false;
  return !model[name].get(value) && value;
}

Result<BpeOptions> read_options(const dom::object& model) {
  BpeOptions options;
  double dropout = 0;
  if (!model["dropout"].get(dropout) && dropout != 0) {
    return unsupported("tokenizer.json: model: dropout is not supported; set it to null");
  }
  options.unk_token = model_string(model, "unk_token");
  options.fuse_unk = model_flag(model, "fuse_unk");
  options.byte_fallback = model_flag(model, "byte_fallback");
  options.ignore_merges = model_flag(model, "ignore_merges");
  options.subword_prefix = model_string(model, "continuing_subword_prefix");
  options.word_suffix = model_string(model, "end_of_word_suffix");
  return options;
}

Result<> check_model(const dom::object& model) {
  const std::string type = model_string(model, "type");
  dom::element merges;
  if (type.empty() && !model["merges"].get(merges)) return {};  // old files name no type
  if (type == "BPE") return {};
  return unsupported("tokenizer.json: model '" + type + "' is not supported, only BPE");
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
  LORRY_ASSIGN(const TokenizerParts parts, read_parts(root, files));
  LORRY_ASSIGN(TokenizerPlan plan, plan_tokenizer(parts));

  auto t = std::make_unique<Impl>();
  LORRY_ASSIGN(t->normalizer, Normalizer::parse(plan.normalizer));
  LORRY_ASSIGN(t->pre_tokenizer, PreTokenizer::parse(plan.pre_tokenizer));
  LORRY_ASSIGN(t->post_processor, PostProcessor::parse(plan.post_processor));
  LORRY_ASSIGN(t->decoder, Decoder::parse(plan.decoder));
  LORRY_ASSIGN(TokenMap vocab, read_vocab(model));
  LORRY_ASSIGN(const std::vector<Bpe::Merge> merges, read_merges(model));
  LORRY_ASSIGN(BpeOptions options, read_options(model));
  if (plan.own_components) {
    options = {};
    options.fuse_unk = options.byte_fallback = plan.tokenizer_class == "LlamaTokenizer";
  }
  LORRY_ASSIGN(t->bpe, Bpe::create(std::move(vocab), merges, std::move(options),
                                   t->pre_tokenizer.byte_level()));
  for (AddedToken& token : plan.added_tokens) {
    t->added.add(std::move(token), t->bpe->vocab(),
                 [&](std::string_view text) { return t->normalizer.apply(text); });
  }
  t->added.build(plan.split_special_tokens);
  t->special_tokens_map = std::move(plan.special_tokens_map);
  t->fill_tables();
  t->digest = digest_of(document, plan, t->added);
  return t;
}

void Tokenizer::Impl::fill_tables() {
  int32_t last = added.all().empty() ? -1 : added.all().rbegin()->first;
  bpe->vocab().for_each([&](std::string_view, int32_t id) { last = std::max(last, id); });
  const auto size = static_cast<size_t>(last + 1);
  tokens.resize(size);
  skipped.resize(size);
  bpe->vocab().for_each([&](std::string_view token, int32_t id) { tokens.set(id, token); });
  for (const auto& [id, token] : added.all()) tokens.set(id, *added.text_of(id));
  if (decoder.byte_level()) bytes.resize(size);
  for (int32_t id = 0; id <= last; ++id) {
    if (!tokens.has(id)) continue;
    const std::string_view token = tokens.get(id);
    skipped[static_cast<size_t>(id)] = added.is_special_text(token);
    if (decoder.byte_level()) bytes.set(id, Decoder::token_bytes(token));
  }
}

}  // namespace lorry::text

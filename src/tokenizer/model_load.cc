#include "tokenizer/model_load.h"

#include <charconv>
#include <cmath>

#include "tokenizer/bpe.h"
#include "tokenizer/unigram.h"
#include "tokenizer/word_piece.h"

namespace lorry::tokenizer {
namespace {

namespace dom = simdjson::dom;

// Far above any vocabulary: keeps tables by id small, and zeros in each id's last byte
// (word_cache.h).
constexpr int64_t kMaxId = (1 << 24) - 1;

Error bad_json(std::string_view what) {
  return invalid_input("tokenizer.json: " + std::string(what));
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

Result<BpeOptions> read_options(const dom::object& model, const ModelChoice& choice) {
  BpeOptions options;
  if (choice.own_options) {
    options.unk_token = choice.unk_token;
    options.fuse_unk = choice.fuse_unknown;
    options.byte_fallback = choice.byte_fallback;
    return options;
  }
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

Result<std::unique_ptr<WordModel>> load_bpe(const dom::object& model, const ModelChoice& choice,
                                            bool byte_level) {
  LORRY_ASSIGN(TokenMap vocab, read_vocab(model));
  LORRY_ASSIGN(const std::vector<Bpe::Merge> merges, read_merges(model));
  LORRY_ASSIGN(BpeOptions options, read_options(model, choice));
  LORRY_ASSIGN(std::unique_ptr<WordModel> bpe,
               Bpe::create(std::move(vocab), merges, std::move(options), byte_level));
  return bpe;
}

/// The score as the peer's JSON reader (Rust's serde_json) has it, which divides the digits by a
/// power of ten and can be one unit off in the last place. Between cuts of equal score that
/// decides.
double as_the_peer_reads(double score) {
  char text[40];
  const auto end =
      std::to_chars(text, text + sizeof text, std::abs(score), std::chars_format::scientific);
  uint64_t digits = 0;
  int n = 0;
  const char* at = text;
  for (; at < end.ptr && *at != 'e'; ++at) {
    if (*at == '.') continue;
    digits = digits * 10 + static_cast<uint64_t>(*at - '0');
    ++n;
  }
  int exponent = 0;
  if (at < end.ptr) std::from_chars(at + (at[1] == '+' ? 2 : 1), end.ptr, exponent);
  exponent -= n - 1;
  const auto value = static_cast<double>(digits);
  if (exponent < -300 || exponent > 300) return score;
  double power = 1;  // correctly rounded, as the peer's table has it
  std::from_chars_result parsed{};
  const std::string written = "1e" + std::to_string(std::abs(exponent));
  parsed = std::from_chars(written.data(), written.data() + written.size(), power);
  if (parsed.ec != std::errc()) return score;
  const double out = exponent < 0 ? value / power : value * power;
  return score < 0 ? -out : out;
}

/// [["piece", score], ...] in the order of ids.
Result<std::unique_ptr<WordModel>> load_unigram(const dom::object& model,
                                                const ModelChoice& choice) {
  dom::array list;
  if (model["vocab"].get(list)) return bad_json("model: no list 'vocab'");
  TokenMap vocab;
  std::vector<double> scores;
  std::vector<WordModel::RepeatedToken> repeated;
  vocab.reserve(list.size());
  scores.reserve(list.size());
  for (const dom::element item : list) {
    dom::array pair;
    std::string_view piece;
    double score = 0;
    if (item.get(pair) || pair.size() != 2 || pair.at(0).get(piece) || pair.at(1).get(score)) {
      return bad_json("model: entry " + std::to_string(scores.size()) +
                      " of 'vocab' is not a piece and its score");
    }
    if (scores.size() > static_cast<size_t>(kMaxId)) return bad_json("model: too many pieces");
    if (const auto known = vocab.find(piece)) repeated.push_back({*known, std::string(piece)});
    vocab.insert(piece, static_cast<int32_t>(scores.size()));
    scores.push_back(as_the_peer_reads(score));
  }
  int64_t unknown = choice.unigram_unk.value_or(-1);
  if (unknown < 0 && model["unk_id"].get(unknown)) {
    return unsupported(
        "tokenizer.json: model: Unigram without unk_id is not supported, because text outside of "
        "its vocabulary would have no ids");
  }
  if (unknown < 0 || unknown > kMaxId) return bad_json("model: unk_id is not an id");
  const bool byte_fallback = !choice.own_options && model_flag(model, "byte_fallback");
  LORRY_ASSIGN(std::unique_ptr<WordModel> unigram,
               Unigram::create(std::move(vocab), std::move(repeated), std::move(scores),
                               static_cast<int32_t>(unknown), byte_fallback));
  return unigram;
}

Result<std::unique_ptr<WordModel>> load_word_piece(const dom::object& model,
                                                   const ModelChoice& choice) {
  LORRY_ASSIGN(TokenMap vocab, read_vocab(model));
  WordPiece::Options options;
  if (choice.own_options) {
    options.unk_token = choice.unk_token;
  } else {
    options.unk_token = model_string(model, "unk_token");
    options.subword_prefix = model_string(model, "continuing_subword_prefix");
    int64_t max_chars = 0;
    if (!model["max_input_chars_per_word"].get(max_chars) && max_chars >= 0) {
      options.max_chars = static_cast<size_t>(max_chars);
    }
  }
  LORRY_ASSIGN(std::unique_ptr<WordModel> out,
               WordPiece::create(std::move(vocab), std::move(options)));
  return out;
}

Result<std::unique_ptr<WordModel>> load_word_level(const dom::object& model) {
  LORRY_ASSIGN(TokenMap vocab, read_vocab(model));
  LORRY_ASSIGN(std::unique_ptr<WordModel> out,
               WordLevel::create(std::move(vocab), model_string(model, "unk_token")));
  return out;
}

}  // namespace

std::string model_type(const dom::object& model) {
  const std::string type = model_string(model, "type");
  if (!type.empty()) return type;
  const auto has = [&](const char* name) {  // old files name no type
    dom::element element;
    return !model[name].get(element);
  };
  return has("merges")                      ? "BPE"
         : has("unk_id")                    ? "Unigram"
         : has("continuing_subword_prefix") ? "WordPiece"
         : has("unk_token")                 ? "WordLevel"
                                            : "";
}

Result<> check_model(const dom::object& model) {
  const std::string type = model_type(model);
  if (type == "BPE" || type == "Unigram" || type == "WordPiece" || type == "WordLevel") return {};
  return unsupported("tokenizer.json: model '" + type +
                     "' is not supported, only BPE, Unigram, WordPiece and WordLevel");
}

Result<std::unique_ptr<WordModel>> load_model(const dom::object& model, const ModelChoice& choice,
                                              bool byte_level) {
  const std::string type = model_type(model);
  if (type == "Unigram") return load_unigram(model, choice);
  if (type == "WordPiece") return load_word_piece(model, choice);
  if (type == "WordLevel") return load_word_level(model);
  return load_bpe(model, choice, byte_level);
}

}  // namespace lorry::tokenizer

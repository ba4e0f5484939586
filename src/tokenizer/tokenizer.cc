#include "tokenizer/tokenizer.h"

#include "tokenizer/tokenizer_impl.h"
#include "tokenizer/unicode.h"

namespace lorry::tokenizer {
namespace {

/// A part of `text` as a text of its own.
AlignedText part_of(const AlignedText& text, size_t begin, size_t end, bool unchanged,
                    bool keep_spans) {
  if (unchanged) {
    return AlignedText(text.text().substr(begin, end - begin), text.span(begin, end).first);
  }
  AlignedText out(keep_spans);
  out.append_part(text, begin, end);
  return out;
}

/// The input with its broken bytes as U+FFFD.
AlignedText mended(std::string_view bytes, bool keep_spans) {
  AlignedText out(keep_spans);
  for (uint32_t at = 0; at < bytes.size();) {
    const Utf8Step step = step_utf8(bytes.substr(at));
    if (step.size) {
      for (uint32_t i = 0; i < step.size; ++i) {
        out.append(bytes.substr(at + i, 1), {at + i, at + i + 1});
      }
    } else {
      out.append("\xEF\xBF\xBD", {at, at + step.bad});
    }
    at += step.size + step.bad;
  }
  return out;
}

std::optional<int32_t> named_id(const Tokenizer& tokenizer, const char* name) {
  const Json& map = tokenizer.special_tokens_map();
  const auto it = map.find(name);
  if (it == map.end()) return std::nullopt;
  return tokenizer.token_to_id(it->get_ref<const std::string&>());
}

}  // namespace

void Tokenizer::Impl::encode(std::string_view text, std::vector<int32_t>& ids,
                             std::vector<Span>* spans) const {
  if (text.empty()) return;
  const bool keep = spans != nullptr || pre_tokenizer.needs_spans();
  const bool valid = is_valid_utf8(text);
  const AlignedText input = valid ? AlignedText(text, 0) : mended(text, keep);
  std::vector<TokenPiece> pieces;
  added.split(input.text(), false, pieces);
  for (const TokenPiece& piece : pieces) {
    if (piece.id < 0) {
      encode_section(part_of(input, piece.begin, piece.end, valid, keep), ids, spans);
    } else {
      ids.push_back(piece.id);
      if (spans) spans->push_back(input.span(piece.begin, piece.end));
    }
  }
}

void Tokenizer::Impl::encode_section(AlignedText text, std::vector<int32_t>& ids,
                                     std::vector<Span>* spans) const {
  const bool keep = spans != nullptr || pre_tokenizer.needs_spans();
  const AlignedText normal = normalizer.apply(std::move(text), keep);
  std::vector<TokenPiece> pieces;
  added.split(normal.text(), true, pieces);
  if (pieces.size() == 1 && pieces[0].id < 0) return encode_words(normal, ids, spans);
  for (const TokenPiece& piece : pieces) {
    if (piece.id < 0) {
      encode_words(part_of(normal, piece.begin, piece.end, false, keep), ids, spans);
    } else {
      ids.push_back(piece.id);
      if (spans) spans->push_back(normal.span(piece.begin, piece.end));
    }
  }
}

void Tokenizer::Impl::encode_words(AlignedText text, std::vector<int32_t>& ids,
                                   std::vector<Span>* spans) const {
  thread_local std::vector<Piece> words;
  thread_local std::vector<Symbol> symbols;
  pre_tokenizer.split(text, words, spans != nullptr || pre_tokenizer.needs_spans());
  model->cut(text.text(), words);
  if (!spans) return model->encode(text.text(), words, ids);
  if (const auto sizes = model->token_sizes(); !sizes.empty()) {
    size_t token = ids.size();
    model->encode(text.text(), words, ids);
    for (const auto& [begin, end] : words) {
      for (size_t at = begin; at < end;) {
        const size_t size = sizes[static_cast<size_t>(ids[token++])];
        spans->push_back(text.span(at, at + size));
        at += size;
      }
    }
    return;
  }
  for (const Piece& word : words) {
    const std::string_view bytes = text.text().substr(word.begin, word.end - word.begin);
    symbols.clear();
    model->encode(bytes, symbols);
    size_t at = word.begin;
    for (const Symbol& s : symbols) {
      ids.push_back(s.id);
      spans->push_back(text.span(at, at + s.size));
      at += s.size;
    }
  }
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

Result<std::shared_ptr<const Tokenizer>> Tokenizer::load(std::string_view tokenizer_json,
                                                         std::string_view tokenizer_config_json) {
  return load(TokenizerFiles{.tokenizer_json = tokenizer_json,
                             .tokenizer_config_json = tokenizer_config_json});
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::load(const TokenizerFiles& files) {
  LORRY_ASSIGN(std::unique_ptr<Impl> impl, Impl::load(files));
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(impl)));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  std::vector<int32_t> ids;
  encode_append(text, add_special_tokens, ids);
  return ids;
}

void Tokenizer::encode_append(std::string_view text, bool add_special_tokens,
                              std::vector<int32_t>& ids) const {
  const PostProcessor& post = impl_->post_processor;
  if (add_special_tokens) ids.insert(ids.end(), post.before.begin(), post.before.end());
  impl_->encode(text, ids, nullptr);
  if (add_special_tokens) ids.insert(ids.end(), post.after.begin(), post.after.end());
}

Encoding Tokenizer::encode_with_offsets(std::string_view text, bool add_special_tokens) const {
  Encoding out;
  const auto add = [&](const std::vector<int32_t>& ids, uint32_t at) {
    out.ids.insert(out.ids.end(), ids.begin(), ids.end());
    out.offsets.insert(out.offsets.end(), ids.size(), {at, at});
  };
  if (add_special_tokens) add(impl_->post_processor.before, 0);
  impl_->encode(text, out.ids, &out.offsets);
  if (add_special_tokens) add(impl_->post_processor.after, static_cast<uint32_t>(text.size()));
  return out;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  const Impl& t = *impl_;
  const auto wanted = [&](int32_t id) {
    return t.tokens.has(id) && !(skip_special_tokens && t.skipped[static_cast<size_t>(id)]);
  };
  if (t.decoder.byte_level()) {
    std::string bytes;
    for (const int32_t id : ids) {
      if (wanted(id)) bytes += t.bytes.get(id);
    }
    return is_valid_utf8(bytes) ? bytes : replace_invalid_utf8(bytes);
  }
  std::vector<std::string> tokens;
  for (const int32_t id : ids) {
    if (wanted(id)) tokens.emplace_back(t.tokens.get(id));
  }
  return t.decoder.decode(std::move(tokens));
}

std::string Tokenizer::token_bytes(int32_t id, bool at_start) const {
  const Impl& t = *impl_;
  if (!t.tokens.has(id)) return "";
  if (t.decoder.byte_level()) return std::string(t.bytes.get(id));
  return t.decoder.bytes_of(std::string(t.tokens.get(id)), at_start);
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->tokens.size()); }

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  if (const auto id = impl_->added.find(token)) return id;
  return impl_->model->vocab().find(token);
}

bool Tokenizer::is_special(int32_t id) const {
  return impl_->tokens.has(id) && impl_->skipped[static_cast<size_t>(id)];
}

std::optional<int32_t> Tokenizer::bos_id() const { return named_id(*this, "bos_token"); }
std::optional<int32_t> Tokenizer::eos_id() const { return named_id(*this, "eos_token"); }

const Json& Tokenizer::special_tokens_map() const { return impl_->special_tokens_map; }
const std::string& Tokenizer::digest() const { return impl_->digest; }

}  // namespace lorry::tokenizer

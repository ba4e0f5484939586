// Decoding one token at a time.
#include <algorithm>

#include "text/tokenizer.h"
#include "text/tokenizer_impl.h"
#include "text/unicode.h"

namespace lorry::text {

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens)
    : tokenizer_(std::move(tokenizer)), skip_special_tokens_(skip_special_tokens) {}

std::string StreamDecoder::push(int32_t id) {
  const Tokenizer::Impl& t = *tokenizer_->impl_;
  if (!t.tokens.has(id)) return "";
  if (skip_special_tokens_ && t.skipped[static_cast<size_t>(id)]) return "";
  if (!t.decoder.byte_level()) return t.decoder.local() ? push_local(id) : push_whole(id);
  pending_ += t.bytes.get(id);
  size_t whole = 0;  // bytes that no later byte can change
  while (whole < pending_.size()) {
    const Utf8Step step = step_utf8(std::string_view(pending_).substr(whole));
    if (step.incomplete) break;
    whole += step.size + step.bad;
  }
  std::string out = replace_invalid_utf8(std::string_view(pending_).substr(0, whole));
  pending_.erase(0, whole);
  return out;
}

/// Each run of byte tokens is decoded with the token that ends it, behind one earlier token that is
/// text, so that no token is decoded twice for long.
std::string StreamDecoder::push_local(int32_t id) {
  const Tokenizer::Impl& t = *tokenizer_->impl_;
  ids_.push_back(id);
  if (t.tokens.get(id).starts_with("<0x")) return "";  // a later byte may belong to it
  const std::string text = tokenizer_->decode(ids_, skip_special_tokens_);
  std::string out = text.size() > emitted_ ? text.substr(emitted_) : "";
  emitted_ = std::max(emitted_, text.size());
  const std::string alone = tokenizer_->decode({&id, 1}, skip_special_tokens_);
  if (!alone.empty()) {
    ids_.assign(1, id);
    emitted_ = alone.size();
    anchored_ = true;
  } else if (anchored_) {
    ids_.resize(1);
    emitted_ = tokenizer_->decode(ids_, skip_special_tokens_).size();
  }
  return out;
}

/// For decoders whose every token may change what is before it.
std::string StreamDecoder::push_whole(int32_t id) {
  ids_.push_back(id);
  if (tokenizer_->impl_->tokens.get(id).starts_with("<0x")) return "";
  const std::string text = tokenizer_->decode(ids_, skip_special_tokens_);
  // A last U+FFFD may still become a character; what came before a shorter text stands.
  if (text.size() <= emitted_ || text.ends_with("\xEF\xBF\xBD")) return "";
  std::string out = text.substr(emitted_);
  emitted_ = text.size();
  return out;
}

std::string StreamDecoder::finish() {
  if (!tokenizer_->impl_->decoder.byte_level()) {
    const std::string text = tokenizer_->decode(ids_, skip_special_tokens_);
    std::string out = text.size() > emitted_ ? text.substr(emitted_) : "";
    ids_.clear();
    emitted_ = 0;
    anchored_ = false;
    return out;
  }
  std::string out = replace_invalid_utf8(pending_);
  pending_.clear();
  return out;
}

}  // namespace lorry::text

// Decoding one token at a time.
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_impl.h"
#include "tokenizer/unicode.h"

namespace lorry::tokenizer {

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens)
    : tokenizer_(std::move(tokenizer)), skip_special_tokens_(skip_special_tokens) {}
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;
StreamDecoder::~StreamDecoder() = default;

std::string StreamDecoder::push(int32_t id) {
  const Tokenizer::Impl& t = *tokenizer_->impl_;
  if (!t.tokens.has(id)) return "";
  if (skip_special_tokens_ && t.skipped[static_cast<size_t>(id)]) return "";
  if (t.decoder.byte_level()) {
    bytes_ += t.bytes.get(id);
    return take_certain_text(bytes_);
  }
  if (!run_) run_ = std::make_unique<DecoderRun>(t.decoder);
  std::string out;
  run_->push(std::string(t.tokens.get(id)), out);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out = replace_invalid_utf8(bytes_);
  bytes_.clear();
  if (run_) run_->finish(out);
  run_.reset();
  return out;
}

}  // namespace lorry::tokenizer

#include "tokenizer/decoder_steps.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "tokenizer/unicode.h"

namespace lorry::tokenizer {
namespace {

using Tokens = DecoderStream::Tokens;
using Change = std::function<std::string(std::string)>;

constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

/// Each run of the step is a Stream of these options.
template <typename Stream, typename... Options>
DecoderStep step_of(Options... options) {
  return [options...] { return std::make_unique<Stream>(options...); };
}

std::string replace_all(const std::string& text, const std::string& from, std::string_view to) {
  std::string out;
  size_t done = 0;
  if (from.empty()) {  // stands between any two characters, as the peer has it
    while (done < text.size()) {
      const size_t size = utf8_size(text[done]);
      out.append(to).append(text, done, size);
      done += size;
    }
    return out.append(to);
  }
  for (size_t at; (at = text.find(from, done)) != text.npos; done = at + from.size()) {
    out.append(text, done, at - done).append(to);
  }
  return out.append(text, done);
}

constexpr std::pair<const char*, const char*> kCleanUps[] = {
    {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
    {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
    {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};

/// English as BERT's decoder puts it together.
std::string clean_up(std::string text) {
  for (const auto& [from, to] : kCleanUps) text = replace_all(text, from, to);
  return text;
}

std::string strip(std::string_view text, const std::string& content, size_t start, size_t stop) {
  for (size_t i = 0; i < start && text.starts_with(content); ++i)
    text.remove_prefix(content.size());
  for (size_t i = 0; i < stop && text.ends_with(content); ++i) text.remove_suffix(content.size());
  return std::string(text);
}

// ---- of tokens ----

class Fuse : public DecoderStream {
 public:
  void push(std::string token, Tokens& out) override { out.push_back(std::move(token)); }
};

class EachToken : public DecoderStream {
 public:
  explicit EachToken(Change change) : change_(std::move(change)) {}
  void push(std::string token, Tokens& out) override { out.push_back(change_(std::move(token))); }

 private:
  Change change_;
};

class ByteLevel : public DecoderStream {
 public:
  void push(std::string token, Tokens& out) override {
    bytes_ += Decoder::token_bytes(token);
    out.push_back(take_certain_text(bytes_));
  }
  void finish(Tokens& out) override {
    if (!bytes_.empty()) out.push_back(replace_invalid_utf8(bytes_));
  }

 private:
  std::string bytes_;  // of a character that is not complete
};

class ByteFallback : public DecoderStream {
 public:
  void push(std::string token, Tokens& out) override {
    if (const auto byte = byte_of_token(token)) {
      bytes_ += *byte;  // a byte that follows can break the whole run
    } else {
      finish(out);
      out.push_back(std::move(token));
    }
  }
  void finish(Tokens& out) override {
    if (bytes_.empty()) return;
    if (is_valid_utf8(bytes_)) {
      out.push_back(std::move(bytes_));
    } else {
      out.insert(out.end(), bytes_.size(), std::string(kReplacementCharacter));
    }
    bytes_.clear();
  }

 private:
  std::string bytes_;
};

class Metaspace : public DecoderStream {
 public:
  Metaspace(std::string replacement, bool prepended)
      : replacement_(std::move(replacement)), prepended_(prepended) {}
  void push(std::string token, Tokens& out) override {
    out.push_back(replace_all(token, replacement_, prepended_ ? "" : " "));
    prepended_ = false;
  }

 private:
  std::string replacement_;
  bool prepended_;  // to the token that comes
};

class BpeDecoder : public DecoderStream {
 public:
  explicit BpeDecoder(std::string suffix) : suffix_(std::move(suffix)) {}
  void push(std::string token, Tokens& out) override {
    if (last_) out.push_back(replace_all(*last_, suffix_, " "));
    last_ = std::move(token);
    if (last_->find(suffix_) != last_->npos) return;
    out.push_back(*std::exchange(last_, std::nullopt));
  }
  void finish(Tokens& out) override {
    if (last_) out.push_back(replace_all(*last_, suffix_, ""));
  }

 private:
  std::string suffix_;
  std::optional<std::string> last_;  // so far, if it holds the suffix
};

class WordPieceDecoder : public DecoderStream {
 public:
  WordPieceDecoder(std::string prefix, bool cleanup)
      : prefix_(std::move(prefix)), cleanup_(cleanup) {}
  void push(std::string token, Tokens& out) override {
    if (!first_) {
      token = token.starts_with(prefix_) ? token.substr(prefix_.size()) : " " + token;
    }
    first_ = false;
    out.push_back(cleanup_ ? clean_up(std::move(token)) : std::move(token));
  }

 private:
  std::string prefix_;
  bool cleanup_;
  bool first_ = true;
};

class CtcDecoder : public DecoderStream {
 public:
  CtcDecoder(std::string pad, std::string delimiter, bool cleanup)
      : pad_(std::move(pad)), delimiter_(std::move(delimiter)), cleanup_(cleanup) {}
  void push(std::string token, Tokens& out) override {
    if (token == last_) return;
    last_ = token;
    token = replace_all(token, pad_, "");
    if (cleanup_) token = replace_all(clean_up(std::move(token)), delimiter_, " ");
    if (!token.empty()) out.push_back(std::move(token));
  }

 private:
  std::string pad_, delimiter_;
  bool cleanup_;
  std::optional<std::string> last_;
};

// ---- of the one text that is left ----

class TextReplace : public DecoderStream {
 public:
  TextReplace(std::string from, std::string to) : from_(std::move(from)), to_(std::move(to)) {}
  void push(std::string part, Tokens& out) override {
    held_ += part;
    std::string text;
    size_t done = 0;
    for (size_t at; (at = held_.find(from_, done)) != held_.npos; done = at + from_.size()) {
      text.append(held_, done, at - done).append(to_);
    }
    size_t hold = std::max(done, held_.size() - std::min(held_.size(), from_.size() - 1));
    while (!from_.starts_with(std::string_view(held_).substr(hold))) ++hold;
    out.push_back(text.append(held_, done, hold - done));
    held_.erase(0, hold);
  }
  void finish(Tokens& out) override { out.push_back(std::move(held_)); }

 private:
  std::string from_, to_;
  std::string held_;  // begins `from_`
};

class TextStrip : public DecoderStream {
 public:
  TextStrip(std::string content, size_t start, size_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  void push(std::string part, Tokens& out) override {
    held_ += part;
    size_t begin = 0;
    const std::string_view held = held_;
    for (; start_ > 0 && held.substr(begin).starts_with(content_); --start_)
      begin += content_.size();
    if (start_ > 0 && content_.starts_with(held.substr(begin))) {
      held_.erase(0, begin);
      return;
    }
    start_ = 0;
    size_t end = held.size() - std::min(held.size() - begin, stop_ * content_.size());
    while (end < held.size() && !may_end(held.substr(end))) ++end;
    out.emplace_back(held.substr(begin, end - begin));
    held_.erase(0, end);
  }
  void finish(Tokens& out) override { out.push_back(strip(held_, content_, start_, stop_)); }

 private:
  /// Whether the text goes on to be `content` again and again.
  bool may_end(std::string_view tail) const {
    while (tail.starts_with(content_)) tail.remove_prefix(content_.size());
    return content_.starts_with(tail);
  }

  std::string content_;
  size_t start_, stop_;
  std::string held_;
};

class TextByteFallback : public DecoderStream {
 public:
  void push(std::string part, Tokens& out) override {
    held_ += part;
    is_long_ |= held_.size() > kByteToken;
    if (is_long_) out.push_back(std::exchange(held_, ""));
  }
  void finish(Tokens& out) override {
    ByteFallback token;
    token.push(std::move(held_), out);
    token.finish(out);
  }

 private:
  static constexpr size_t kByteToken = 6;  // bytes
  std::string held_;
  bool is_long_ = false;
};

class WholeText : public DecoderStream {
 public:
  explicit WholeText(Change change) : change_(std::move(change)) {}
  void push(std::string part, Tokens&) override {
    if (!text_) text_.emplace();
    *text_ += part;
  }
  void finish(Tokens& out) override {
    if (text_) out.push_back(change_(std::move(*text_)));
  }

 private:
  Change change_;
  std::optional<std::string> text_;
};

}  // namespace

std::optional<char> byte_of_token(std::string_view t) {
  if (t.size() != 6 || !t.starts_with("<0x") || t[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : t.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + digit;
  }
  return static_cast<char>(value);
}

std::string replace_matches(const Regex& pattern, const std::string& text,
                            std::string_view content) {
  if (text.empty()) return text;
  Regex::Iterator matches(pattern, text);
  std::string out;
  size_t done = 0;
  for (Regex::Match m; matches.next(m); done = m.end) {
    out.append(text, done, m.begin - done).append(content);
  }
  return out.append(text, done);
}

DecoderStep make_fuse() { return step_of<Fuse>(); }
DecoderStep make_byte_level_decoder() { return step_of<ByteLevel>(); }
DecoderStep make_byte_fallback() { return step_of<ByteFallback>(); }

DecoderStep make_each_token(std::function<std::string(std::string)> change) {
  return step_of<EachToken>(std::move(change));
}

DecoderStep make_strip_decoder(std::string content, size_t start, size_t stop) {
  return make_each_token([=](const std::string& t) { return strip(t, content, start, stop); });
}

DecoderStep make_metaspace_decoder(std::string replacement, bool prepended) {
  return step_of<Metaspace>(std::move(replacement), prepended);
}

DecoderStep make_bpe_decoder(std::string suffix) { return step_of<BpeDecoder>(std::move(suffix)); }

DecoderStep make_word_piece_decoder(std::string prefix, bool cleanup) {
  return step_of<WordPieceDecoder>(std::move(prefix), cleanup);
}

DecoderStep make_ctc_decoder(std::string pad, std::string delimiter, bool cleanup) {
  return step_of<CtcDecoder>(std::move(pad), std::move(delimiter), cleanup);
}

DecoderStep make_text_replace(std::string from, std::string to) {
  if (!from.empty()) return step_of<TextReplace>(std::move(from), std::move(to));
  return make_whole_text([=](const std::string& text) { return replace_all(text, from, to); });
}

DecoderStep make_text_strip(std::string content, size_t start, size_t stop) {
  return step_of<TextStrip>(std::move(content), start, stop);
}

std::vector<DecoderStep> make_text_clean_up() {
  std::vector<DecoderStep> steps;
  for (const auto& [from, to] : kCleanUps) steps.push_back(make_text_replace(from, to));
  return steps;
}

DecoderStep make_text_byte_fallback() { return step_of<TextByteFallback>(); }

DecoderStep make_whole_text(std::function<std::string(std::string)> change) {
  return step_of<WholeText>(std::move(change));
}

}  // namespace lorry::tokenizer

// The changes that a decoder is made of.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "tokenizer/decoder.h"
#include "tokenizer/regex.h"

namespace lorry::tokenizer {

// ---- of tokens ----

/// Joins all tokens into one.
DecoderStep make_fuse();
/// Byte characters into bytes, joined.
DecoderStep make_byte_level_decoder();
/// Runs of <0x61> into the characters that their bytes make, or U+FFFD for each.
DecoderStep make_byte_fallback();
DecoderStep make_each_token(std::function<std::string(std::string)> change);
/// `content` off the front of a token up to `start` times, off its end up to `stop` times.
DecoderStep make_strip_decoder(std::string content, size_t start, size_t stop);
/// `replacement` into a space, but in the first token into nothing if one was `prepended`.
DecoderStep make_metaspace_decoder(std::string replacement, bool prepended);
/// `suffix` into a space, but in the last token into nothing.
DecoderStep make_bpe_decoder(std::string suffix);
/// A space before every token that does not begin with `prefix`, but not before the first.
DecoderStep make_word_piece_decoder(std::string prefix, bool cleanup);
/// Tokens that repeat are one; `pad` goes, and with `cleanup` `delimiter` is a space.
DecoderStep make_ctc_decoder(std::string pad, std::string delimiter, bool cleanup);

// ---- of the one token that is left when all are joined ----

DecoderStep make_text_replace(std::string from, std::string to);
DecoderStep make_text_strip(std::string content, size_t start, size_t stop);
/// BERT's English: " ." into "." and the like.
std::vector<DecoderStep> make_text_clean_up();
/// <0x61> if the text is no more than that.
DecoderStep make_text_byte_fallback();
/// For what only the whole text can tell: held until the end.
DecoderStep make_whole_text(std::function<std::string(std::string)> change);

/// The byte of a token such as <0x61>.
std::optional<char> byte_of_token(std::string_view token);

/// All matches replaced.
std::string replace_matches(const Regex& pattern, const std::string& text,
                            std::string_view content);

}  // namespace lorry::tokenizer

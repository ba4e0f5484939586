// The cuts that a pre-tokenizer is made of.
#pragma once

#include <memory>
#include <string>

#include "tokenizer/pretokenizer.h"
#include "tokenizer/regex.h"
#include "tokenizer/unicode.h"

namespace lorry::tokenizer {

/// What becomes of the matches of a pattern when text is cut at them.
enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

enum class PrependScheme { kFirst, kNever, kAlways };

/// Cuts at the matches of a pattern; `invert` takes what does not match for the matches.
std::unique_ptr<PreTokenizerStep> make_regex_split(Regex pattern, SplitBehavior behavior,
                                                   bool invert);
/// Cuts at single characters of a set.
std::unique_ptr<PreTokenizerStep> make_set_split(const CodePointSet& set, SplitBehavior behavior);
/// A space before each piece that does not start with one.
std::unique_ptr<PreTokenizerStep> make_prefix_space();
/// Bytes become the characters that byte-level vocabularies write for them.
std::unique_ptr<PreTokenizerStep> make_byte_chars();
/// Spaces become `replacement`, which may be put before a piece as well.
std::unique_ptr<PreTokenizerStep> make_metaspace(std::string replacement, PrependScheme scheme);
/// Cuts where the script changes; spaces go with what is before them.
std::unique_ptr<PreTokenizerStep> make_script_split();
/// Pieces of so many characters.
std::unique_ptr<PreTokenizerStep> make_fixed_length(size_t length);

}  // namespace lorry::tokenizer

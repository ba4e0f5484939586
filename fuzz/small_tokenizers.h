// Small tokenizers of each kind of model.
#pragma once

#include <string_view>

namespace lorry::fuzz {

constexpr std::string_view kTokenizers[] = {
    R"({"added_tokens": [{"id": 6, "content": "<s>", "special": true, "normalized": false},
        {"id": 7, "content": "ba", "lstrip": true, "rstrip": true, "normalized": true}],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true, "use_regex": true},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3, "\u0120ab": 4, "aa": 5},
        "merges": ["a b", "\u0120 ab", "a a"]}})",
    R"({"normalizer": {"type": "Sequence", "normalizers": [
        {"type": "Precompiled", "precompiled_charsmap": "NAAAAAAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAACACgUAAAAAAAAgAA=="},
        {"type": "Nmt"}, {"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first"},
        "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first"},
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": true, "vocab": [["<unk>", 0],
        ["<s>", 0], ["</s>", 0], ["<pad>", 0], ["\u2581", -2], ["a", -3], ["ab", -4.5], ["b", -3.25]]}})",
    R"({"normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
        "lowercase": true}, "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "##b": 4}}})",
    R"({"normalizer": {"type": "Prepend", "prepend": "\u2581"},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?<=a)\\s+(?!\\S)|\\p{L}+?b"},
        "behavior": "MergedWithNext", "invert": false},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"},
        "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "fuse_unk": true,
        "vocab": {"<unk>": 0, "a": 1, "b": 2, "ab": 3, "<0xC3>": 4, "<0xA9>": 5, "\u2581": 6},
        "merges": ["a b"]}})",
    R"({"added_tokens": [{"id": 4, "content": "ba", "single_word": true, "rstrip": true, "normalized": true},
        {"id": 5, "content": "\u00e9", "lstrip": true, "normalized": true, "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "StripAccents"},
        {"type": "Lowercase"}, {"type": "Strip", "strip_left": true, "strip_right": true}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "UnicodeScripts"},
        {"type": "Whitespace"}, {"type": "FixedLength", "length": 2}]},
        "decoder": {"type": "CTC", "pad_token": "b", "word_delimiter_token": "a", "cleanup": true},
        "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "a": 1, "b": 2, "ab": 3}}})",
    R"({"normalizer": {"type": "NFD"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": true}, {"type": "Punctuation", "behavior": "Contiguous"},
        {"type": "WhitespaceSplit"}]},
        "decoder": {"type": "BPEDecoder", "suffix": "</w>"},
        "model": {"type": "BPE", "unk_token": "?", "continuing_subword_prefix": "##",
        "end_of_word_suffix": "</w>", "vocab": {"?": 0, "a": 1, "##b": 2, "##b</w>": 3, "ab": 4, "a</w>": 5,
        "ab</w>": 6}, "merges": ["a ##b", "a ##b</w>"]}})"};

}  // namespace lorry::fuzz

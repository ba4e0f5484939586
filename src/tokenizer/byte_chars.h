// The printable characters that byte-level vocabularies write for bytes (GPT-2's table).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lorry::tokenizer {

/// The character that stands for `byte`.
uint32_t byte_to_char(uint8_t byte);
/// The byte that `code_point` stands for.
std::optional<uint8_t> char_to_byte(uint32_t code_point);

/// Every byte as its character.
std::string bytes_to_chars(std::string_view bytes);
/// The bytes that a token of such a vocabulary means; nullopt if some character means none.
std::optional<std::string> chars_to_bytes(std::string_view token);

}  // namespace lorry::tokenizer

// Marks in the strings of messages, by which their words are found again in a rendered text.
//
// A mark is a private-use code point that stands for a number. Where templates look at a content
// (they strip it, look for a tag at its ends, cut it at `</think>`), they look at its white space
// and its tags; so no mark stands outside of these.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace lorry::chat {

inline constexpr size_t kMarks = 0xFFFE;  ///< numbers that there are marks for
inline constexpr size_t kMarkBytes = 4;
inline constexpr std::string_view kThinkEnd = "</think>";

std::string mark(size_t number);
/// Whether a mark stands at byte `at` of a text, and its number.
bool is_mark(std::string_view s, size_t at);
size_t mark_number(std::string_view s, size_t at);

bool is_space(char c);

/// Where the marks of a string go, in order: around its words, and around `</think>`. None if it
/// has no words.
std::vector<size_t> mark_places(std::string_view s);

/// Puts the mark into a string, and into the arguments of a tool call: their strings and keys.
void mark_string(Json& value, const std::string& mark);
void mark_call(Json& call, const std::string& mark);

}  // namespace lorry::chat

// What data sets call their columns: the one table behind docs/formats.md. Within a list the first
// that a data set has counts; names are compared without regard to case.
#pragma once

#include <array>

namespace lorry::data::names {

/// Lists of turns.
inline constexpr std::array kConversation = {"conversations", "messages", "conversation"};
/// Lists of turns too, where they are lists: some data sets call other things so.
inline constexpr std::array kDialogue = {"dialogue", "dialog", "turns", "chat", "data", "contents"};

inline constexpr std::array kPrompt = {"prompt",  "question", "instruction", "query",
                                       "problem", "input",    "user"};
/// Text that the prompt refers to, beside one of the above.
inline constexpr std::array kInput = {"input", "context"};
inline constexpr std::array kHistory = {"history"};
inline constexpr std::array kCompletion = {
    "completion", "response",           "answer",   "output", "solution",
    "generation", "generated_solution", "assistant"};
/// Without one of these, beside tools: calls of the tools (xLAM).
inline constexpr std::array kCalls = {"answers"};
/// Likewise, of answers to one question: the first of them (SQuAD).
inline constexpr std::array kAnswerLists = {"answers"};
inline constexpr std::array kText = {"text"};
inline constexpr std::array kSystem = {"system", "system_prompt", "system_message",
                                       "systeminstruction", "system_instruction"};
inline constexpr std::array kTools = {"tools", "functions"};

/// Preference pairs (DPO): TRL's names, and OpenAI's beside an `input` that is a request.
inline constexpr std::array kChosen = {"chosen", "preferred_output"};
inline constexpr std::array kRejected = {"rejected", "non_preferred_output"};
/// Of a prompt that is a request ({"messages": [...], "tools": [...]}).
inline constexpr char kRequestMessages[] = "messages";
inline constexpr char kRequestTools[] = "tools";

/// Texts in parts, each to be learned or not: lists of {label, text} (Axolotl's input_output).
inline constexpr char kSegments[] = "segments";
/// Rows that are no examples: single messages of trees (Open Assistant).
inline constexpr std::array kMessageOfTree = {"message_id", "parent_id", "text"};

/// Parts of a prompt that have no place of their own: with anything in them, a row is not whole
/// without them.
inline constexpr std::array kMoreInput = {"choices", "options",  "passage", "paragraph",
                                          "article", "document", "story",   "background"};
/// What a model of text does not see.
inline constexpr std::array kMedia = {"image", "images", "video", "videos", "audio", "audios"};

/// `user` and `assistant` are a prompt and an answer only side by side: either alone is often an
/// account's name.
inline constexpr char kUser[] = "user";
inline constexpr char kAssistant[] = "assistant";

}  // namespace lorry::data::names

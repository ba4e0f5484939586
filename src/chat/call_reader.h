// The tool calls in an answer, found while it is written.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/call_form.h"

namespace lorry::chat {

struct ToolCall {
  std::string name;
  std::string arguments;  ///< the text of a JSON object
};

/// Text goes in piece by piece; what comes out is content that can no longer become part of a call,
/// and calls that are complete. What looks like a call and is none (broken JSON, cut short, an
/// unknown name in a bare form) is content as it stands. Not thread-safe.
class CallReader {
 public:
  struct Piece {
    std::string content;
    std::vector<ToolCall> calls;
  };

  /// `names`: of the tools that may be called. In a bare form, JSON that names none is content.
  CallReader(CallForm form, std::vector<std::string> names)
      : form_(std::move(form)), names_(std::move(names)) {}
  Piece push(std::string_view text);
  /// What was held back.
  Piece finish();

 private:
  enum class State { kContent, kCall, kAfterCall };

  /// Goes on as far as the held text tells; false if more is needed.
  bool read_content(Piece& out);
  bool read_call(Piece& out);
  bool read_after_call();
  /// Where a call may begin, and the size of what opens it.
  std::optional<std::pair<size_t, size_t>> find_opening() const;
  bool begins_line(size_t at) const;
  std::optional<std::vector<ToolCall>> calls_of(std::string_view json) const;
  void emit(size_t size, Piece& out);

  CallForm form_;
  std::vector<std::string> names_;
  State state_ = State::kContent;
  std::string held_;
  size_t json_ = 0;         // in kCall: where in `held_` its JSON is to begin
  bool line_start_ = true;  // `held_` begins a line
  bool called_ = false;
};

}  // namespace lorry::chat

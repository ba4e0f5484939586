#include "cli/line_editor.h"

#include <poll.h>
#include <sys/ioctl.h>  // the terminal's width
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <string_view>
#include <utility>

#include "base/cancel.h"

namespace lorry::cli {
namespace {

constexpr unsigned char control_key(char letter) {
  return static_cast<unsigned char>(letter - '@');
}

bool continues(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

/// Columns of a character: none for marks, two for East Asian letters and pictures.
size_t width(std::string_view character) {
  const auto first = static_cast<unsigned char>(character[0]);
  uint32_t code = first < 0x80 ? first : first & (0xff >> (character.size() + 1));
  for (size_t i = 1; i < character.size(); ++i)
    code = code << 6 | (static_cast<unsigned char>(character[i]) & 0x3f);
  const auto in = [code](std::initializer_list<std::pair<uint32_t, uint32_t>> ranges) {
    return std::any_of(ranges.begin(), ranges.end(), [code](const auto& range) {
      return code >= range.first && code <= range.second;
    });
  };
  if (in({{0x300, 0x36f}, {0x200b, 0x200f}, {0xfe00, 0xfe0f}})) return 0;
  return in({{0x1100, 0x115f},
             {0x2e80, 0xa4cf},
             {0xac00, 0xd7a3},
             {0xf900, 0xfaff},
             {0xfe30, 0xfe6f},
             {0xff00, 0xff60},
             {0xffe0, 0xffe6},
             {0x1f300, 0x1f64f},
             {0x1f680, 0x1f6ff},
             {0x1f900, 0x1f9ff},
             {0x20000, 0x3fffd}})
             ? 2
             : 1;
}

/// Keys one by one, unseen and without signals, until the object ends.
class KeyMode {
 public:
  KeyMode() {
    if (tcgetattr(STDIN_FILENO, &before_) != 0) return;
    termios keys = before_;
    keys.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG | IEXTEN);
    keys.c_cc[VMIN] = 1;
    keys.c_cc[VTIME] = 0;
    changed_ = tcsetattr(STDIN_FILENO, TCSADRAIN, &keys) == 0;
  }
  ~KeyMode() {
    if (changed_) tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
  }
  KeyMode(const KeyMode&) = delete;
  KeyMode& operator=(const KeyMode&) = delete;

 private:
  termios before_{};
  bool changed_ = false;
};

size_t terminal_columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

void draw(const std::string& prompt, const LineBuffer& line) {
  const size_t columns = terminal_columns();
  const auto view = line.view(columns > prompt.size() + 2 ? columns - prompt.size() - 1 : 1);
  std::fprintf(stderr, "\r%s%s\x1b[K\r\x1b[%zuC", prompt.c_str(), view.text.c_str(),
               prompt.size() + view.column);
}

bool input_within(int milliseconds) {
  pollfd input{STDIN_FILENO, POLLIN, 0};
  return ::poll(&input, 1, milliseconds) > 0;
}

}  // namespace

LineBuffer::LineBuffer(std::vector<std::string> history) : lines_(std::move(history)) {
  lines_.emplace_back();
  line_ = lines_.size() - 1;
}

LineBuffer::Key LineBuffer::feed(unsigned char byte) {
  if (!escape_.empty()) {
    escape_ += static_cast<char>(byte);
    const bool begins = escape_.size() == 2 && (byte == '[' || byte == 'O');
    if (!begins && byte >= 0x40) escape_sequence();
    return Key::kEdit;
  }
  if (byte == '\r' || byte == '\n') return Key::kEnter;
  if (byte == control_key('D') && text_.empty()) return Key::kEnd;
  if (byte == control_key('C')) {
    if (text_.empty()) return Key::kInterrupt;
    erase(0, text_.size());
  } else if (byte == 0x1b) {
    escape_ = "\x1b";
  } else if (byte < 0x20 || byte == 0x7f) {
    control(byte);
  } else {
    insert(static_cast<char>(byte));
  }
  return Key::kEdit;
}

void LineBuffer::control(unsigned char byte) {
  switch (byte) {
    case 0x7f:
    case control_key('H'):
      return erase(before(cursor_), cursor_);
    case control_key('D'):
      return erase(cursor_, after(cursor_));
    case control_key('A'):
      cursor_ = 0;
      return;
    case control_key('E'):
      cursor_ = text_.size();
      return;
    case control_key('B'):
      cursor_ = before(cursor_);
      return;
    case control_key('F'):
      cursor_ = after(cursor_);
      return;
    case control_key('U'):
      return erase(0, cursor_);
    case control_key('K'):
      return erase(cursor_, text_.size());
    case control_key('W'): {
      size_t begin = cursor_;
      while (begin > 0 && text_[begin - 1] == ' ') --begin;
      while (begin > 0 && text_[begin - 1] != ' ') --begin;
      return erase(begin, cursor_);
    }
    case control_key('P'):
      return recall(line_ - 1);
    case control_key('N'):
      return recall(line_ + 1);
    case '\t':
      return insert(' ');
    default:
      return;
  }
}

void LineBuffer::escape_sequence() {
  const std::string keys = std::exchange(escape_, "").substr(1);
  const auto is = [&keys](std::initializer_list<const char*> names) {
    return std::any_of(names.begin(), names.end(), [&](const char* name) { return keys == name; });
  };
  if (is({"[D", "OD"})) cursor_ = before(cursor_);
  if (is({"[C", "OC"})) cursor_ = after(cursor_);
  if (is({"[H", "OH", "[1~", "[7~"})) cursor_ = 0;
  if (is({"[F", "OF", "[4~", "[8~"})) cursor_ = text_.size();
  if (is({"[3~"})) erase(cursor_, after(cursor_));
  if (is({"[A", "OA"})) recall(line_ - 1);
  if (is({"[B", "OB"})) recall(line_ + 1);
}

void LineBuffer::insert(char byte) { text_.insert(cursor_++, 1, byte); }

void LineBuffer::erase(size_t begin, size_t end) {
  text_.erase(begin, end - begin);
  cursor_ = begin;
}

void LineBuffer::recall(size_t entry) {
  if (entry >= lines_.size()) return;  // also one before the first
  lines_[line_] = text_;
  line_ = entry;
  text_ = lines_[entry];
  cursor_ = text_.size();
}

size_t LineBuffer::before(size_t at) const {
  if (at == 0) return 0;
  --at;
  while (at > 0 && continues(text_[at])) --at;
  return at;
}

size_t LineBuffer::after(size_t at) const {
  if (at < text_.size()) ++at;
  while (at < text_.size() && continues(text_[at])) ++at;
  return at;
}

LineBuffer::View LineBuffer::view(size_t columns) const {
  // As much as fits in front of the cursor, then what follows it.
  size_t begin = cursor_, used = 0;
  while (begin > 0) {
    const size_t previous = before(begin);
    const size_t more = width({text_.data() + previous, begin - previous});
    if (used + more > columns) break;
    begin = previous, used += more;
  }
  View view{text_.substr(begin, cursor_ - begin), used};
  for (size_t at = cursor_; at < text_.size();) {
    const size_t next = after(at);
    used += width({text_.data() + at, next - at});
    if (used > columns) break;
    view.text.append(text_, at, next - at);
    at = next;
  }
  return view;
}

Result<std::optional<std::string>> read_line(const std::string& prompt,
                                             const std::vector<std::string>& history) {
  const KeyMode mode;
  LineBuffer line(history);
  for (;;) {
    if (!input_within(0)) draw(prompt, line);  // pasted text is drawn once
    while (!input_within(100)) LORRY_TRY(check_cancelled());
    unsigned char byte = 0;
    const bool ended = ::read(STDIN_FILENO, &byte, 1) != 1;
    const auto key = ended ? LineBuffer::Key::kEnd : line.feed(byte);
    if (key == LineBuffer::Key::kEdit) continue;
    if (key == LineBuffer::Key::kEnter) draw(prompt, line);
    std::fputs("\n", stderr);
    if (key == LineBuffer::Key::kEnter) return std::optional(line.text());
    if (key == LineBuffer::Key::kEnd) return std::optional<std::string>();
    request_cancel(SIGINT);
    return cancelled("stopped by Ctrl-C");
  }
}

}  // namespace lorry::cli

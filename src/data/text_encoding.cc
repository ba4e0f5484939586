#include "data/text_encoding.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/utf8.h"
#include "data/input_stream.h"

namespace lorry::data {
namespace {

constexpr std::string_view kLittle = "\xFF\xFE", kBig = "\xFE\xFF";

bool is_first_half(char32_t unit) { return unit >= 0xD800 && unit < 0xDC00; }
bool is_second_half(char32_t unit) { return unit >= 0xDC00 && unit < 0xE000; }

class Utf8Stream final : public ForwardStream {
 public:
  explicit Utf8Stream(std::shared_ptr<arrow::io::InputStream> bytes) : bytes_(std::move(bytes)) {}

  using ForwardStream::Read;
  arrow::Result<int64_t> Read(int64_t size, void* out) override {
    if (!looked_) ARROW_RETURN_NOT_OK(look());
    if (!is_utf16_ && given_ == text_.size()) {
      ARROW_ASSIGN_OR_RAISE(const int64_t got, bytes_->Read(size, out));
      return advance(got);
    }
    while (given_ == text_.size() && !ended_) ARROW_RETURN_NOT_OK(read_on());
    const size_t n = std::min(size_t(size), text_.size() - given_);
    std::memcpy(out, text_.data() + given_, n);
    given_ += n;
    return advance(int64_t(n));
  }

 private:
  static constexpr size_t kPiece = 1 << 16;

  /// At the byte order mark, which is no text; other bytes are given as they are.
  arrow::Status look() {
    looked_ = true;
    text_.resize(kLittle.size());
    size_t n = 0;
    while (n < text_.size()) {
      ARROW_ASSIGN_OR_RAISE(const int64_t got,
                            bytes_->Read(int64_t(text_.size() - n), text_.data() + n));
      if (got == 0) break;
      n += size_t(got);
    }
    text_.resize(n);
    is_utf16_ = is_utf16(text_);
    is_big_ = text_ == kBig;
    if (is_utf16_) text_.clear();
    return arrow::Status::OK();
  }

  /// Decodes another piece; what was decoded before has been given out.
  arrow::Status read_on() {
    text_.clear();
    given_ = 0;
    const size_t left = raw_.size();
    raw_.resize(left + kPiece);
    ARROW_ASSIGN_OR_RAISE(const int64_t got, bytes_->Read(int64_t(kPiece), raw_.data() + left));
    raw_.resize(left + size_t(got));
    ended_ = got == 0;
    ARROW_RETURN_NOT_OK(decode());
    return ended_ && !raw_.empty() ? broken() : arrow::Status::OK();
  }

  char32_t unit_at(size_t i) const {
    const auto first = static_cast<unsigned char>(raw_[i]);
    const auto second = static_cast<unsigned char>(raw_[i + 1]);
    return is_big_ ? char32_t(first) << 8 | second : char32_t(second) << 8 | first;
  }

  /// All whole characters of `raw_`.
  arrow::Status decode() {
    size_t i = 0;
    for (; i + 1 < raw_.size(); i += 2) {
      char32_t code = unit_at(i);
      if (is_second_half(code)) return broken();
      if (is_first_half(code)) {
        if (i + 3 >= raw_.size()) break;
        const char32_t second = unit_at(i + 2);
        if (!is_second_half(second)) return broken();
        code = 0x10000 + ((code - 0xD800) << 10) + (second - 0xDC00);
        i += 2;
      }
      append_utf8(text_, code);
    }
    raw_.erase(0, i);
    return arrow::Status::OK();
  }

  static arrow::Status broken() {
    return arrow::Status::Invalid("not whole UTF-16, which its byte order mark says it is");
  }

  std::shared_ptr<arrow::io::InputStream> bytes_;
  bool looked_ = false, is_utf16_ = false, is_big_ = false, ended_ = false;
  std::string raw_;   ///< read, and not decoded
  std::string text_;  ///< decoded
  size_t given_ = 0;  ///< of `text_`
};

}  // namespace

bool is_utf16(std::string_view head) { return head.starts_with(kLittle) || head.starts_with(kBig); }

std::shared_ptr<arrow::io::InputStream> as_utf8(std::shared_ptr<arrow::io::InputStream> bytes) {
  return std::make_shared<Utf8Stream>(std::move(bytes));
}

}  // namespace lorry::data

// Text that remembers which bytes of the input it came from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorry::tokenizer {

using Span = std::pair<uint32_t, uint32_t>;  ///< bytes [begin, end)

/// UTF-8 text with the span of the original input behind each byte. While it is an unchanged part
/// of the input it is a view and the spans are implied; otherwise it owns its bytes. Spans are kept
/// only when the caller wants offsets.
class AlignedText {
 public:
  /// An unchanged part of the input; the bytes must outlive this object.
  AlignedText(std::string_view view, uint32_t origin) : view_(view), origin_(origin) {}
  /// Changed text, to be filled by append().
  explicit AlignedText(bool keep_spans) : owned_(true), keep_spans_(keep_spans) {}

  std::string_view text() const { return owned_ ? std::string_view(bytes_) : view_; }

  /// The input's bytes behind [begin, end) of this text. Without spans: {0, 0}.
  Span span(size_t begin, size_t end) const {
    if (!owned_) return {origin_ + uint32_t(begin), origin_ + uint32_t(end)};
    if (spans_.empty() || begin >= spans_.size()) return {0, 0};
    if (begin >= end) return {spans_[begin].first, spans_[begin].first};
    Span out = spans_[begin];
    for (size_t i = begin + 1; i < end; ++i) {
      if (spans_[i].first < out.first) out.first = spans_[i].first;
      if (spans_[i].second > out.second) out.second = spans_[i].second;
    }
    return out;
  }

  void append(std::string_view bytes, Span from) {
    bytes_ += bytes;
    if (keep_spans_) spans_.insert(spans_.end(), bytes.size(), from);
  }
  /// [begin, end) of `source`, byte by byte.
  void append_part(const AlignedText& source, size_t begin, size_t end) {
    bytes_ += source.text().substr(begin, end - begin);
    if (!keep_spans_) return;
    for (size_t i = begin; i < end; ++i) spans_.push_back(source.span(i, i + 1));
  }

 private:
  bool owned_ = false;
  bool keep_spans_ = false;
  std::string_view view_;
  uint32_t origin_ = 0;
  std::string bytes_;
  std::vector<Span> spans_;
};

}  // namespace lorry::tokenizer

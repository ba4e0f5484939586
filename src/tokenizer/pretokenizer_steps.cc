#include "tokenizer/pretokenizer_steps.h"

#include "tokenizer/byte_chars.h"

namespace lorry::tokenizer {
namespace {

struct Part {
  size_t begin, end;
  bool is_match;
};

void push(std::vector<Piece>& out, size_t begin, size_t end) {
  if (begin < end) out.push_back({begin, end});
}

void merge_contiguous(const std::vector<Part>& parts, std::vector<Piece>& out) {
  for (size_t i = 0; i < parts.size();) {
    size_t k = i + 1;
    while (k < parts.size() && parts[k].is_match == parts[i].is_match) ++k;
    push(out, parts[i].begin, parts[k - 1].end);
    i = k;
  }
}

/// A match joins what is before it, unless that is a match too.
void merge_with_previous(const std::vector<Part>& parts, std::vector<Piece>& out) {
  bool previous = false;
  std::vector<Piece> merged;
  for (const Part& p : parts) {
    if (p.is_match && !previous && !merged.empty()) {
      merged.back().end = p.end;
    } else {
      merged.push_back({p.begin, p.end});
    }
    previous = p.is_match;
  }
  for (const Piece& p : merged) push(out, p.begin, p.end);
}

void merge_with_next(const std::vector<Part>& parts, std::vector<Piece>& out) {
  bool following = false;
  std::vector<Piece> merged;  // from the end
  for (auto p = parts.rbegin(); p != parts.rend(); ++p) {
    if (p->is_match && !following && !merged.empty()) {
      merged.back().begin = p->begin;
    } else {
      merged.push_back({p->begin, p->end});
    }
    following = p->is_match;
  }
  for (auto p = merged.rbegin(); p != merged.rend(); ++p) push(out, p->begin, p->end);
}

void cut(const std::vector<Part>& parts, SplitBehavior behavior, std::vector<Piece>& out) {
  switch (behavior) {
    case SplitBehavior::kIsolated:
      for (const Part& p : parts) push(out, p.begin, p.end);
      return;
    case SplitBehavior::kRemoved:
      for (const Part& p : parts) {
        if (!p.is_match) push(out, p.begin, p.end);
      }
      return;
    case SplitBehavior::kContiguous:
      return merge_contiguous(parts, out);
    case SplitBehavior::kMergedWithPrevious:
      return merge_with_previous(parts, out);
    case SplitBehavior::kMergedWithNext:
      return merge_with_next(parts, out);
  }
}

class RegexSplit : public PreTokenizerStep {
 public:
  RegexSplit(Regex pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  void apply(AlignedText& text, const std::vector<Piece>& in, std::vector<Piece>& out,
             bool) const override {
    if (behavior_ == SplitBehavior::kIsolated) return pattern_.split(text.text(), in, out);
    std::vector<Part> parts;
    for (const Piece& piece : in) {
      const std::string_view all = text.text().substr(piece.begin, piece.end - piece.begin);
      Regex::Iterator matches(pattern_, all);
      Regex::Match m;
      size_t done = 0;
      parts.clear();
      while (matches.next(m)) {
        if (done != m.begin) parts.push_back({piece.begin + done, piece.begin + m.begin, invert_});
        parts.push_back({piece.begin + m.begin, piece.begin + m.end, !invert_});
        done = m.end;
      }
      if (done != all.size()) parts.push_back({piece.begin + done, piece.end, invert_});
      cut(parts, behavior_, out);
    }
  }

 private:
  Regex pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

class SetSplit : public PreTokenizerStep {
 public:
  SetSplit(const CodePointSet& set, SplitBehavior behavior) : set_(set), behavior_(behavior) {}

  void apply(AlignedText& text, const std::vector<Piece>& in, std::vector<Piece>& out,
             bool) const override {
    std::vector<Part> parts;
    for (const Piece& piece : in) {
      parts.clear();
      size_t done = piece.begin;
      for (size_t i = piece.begin; i < piece.end;) {
        const Decoded d = decode_utf8(&text.text()[i]);
        if (set_.contains(d.code_point)) {
          if (done < i) parts.push_back({done, i, false});
          parts.push_back({i, i + d.size, true});
          done = i + d.size;
        }
        i += d.size;
      }
      if (done < piece.end) parts.push_back({done, piece.end, false});
      cut(parts, behavior_, out);
    }
  }

 private:
  CodePointTable set_;
  SplitBehavior behavior_;
};

/// `write(piece, changed)` for each piece, and the pieces of what it wrote.
template <typename Write>
void rewrite(AlignedText& text, const std::vector<Piece>& in, std::vector<Piece>& out,
             bool keep_spans, Write write) {
  AlignedText changed(keep_spans);
  for (const Piece& piece : in) {
    const size_t begin = changed.text().size();
    write(piece, changed);
    out.push_back({begin, changed.text().size()});
  }
  text = std::move(changed);
}

class PrefixSpace : public PreTokenizerStep {
 public:
  void apply(AlignedText& text, const std::vector<Piece>& in, std::vector<Piece>& out,
             bool keep_spans) const override {
    rewrite(text, in, out, keep_spans, [&](const Piece& piece, AlignedText& changed) {
      if (text.text()[piece.begin] != ' ') {
        const uint32_t at = text.span(piece.begin, piece.begin + 1).first;
        changed.append(" ", {at, at});
      }
      changed.append_part(text, piece.begin, piece.end);
    });
  }
};

class ByteChars : public PreTokenizerStep {
 public:
  void apply(AlignedText& text, const std::vector<Piece>& in, std::vector<Piece>& out,
             bool keep_spans) const override {
    rewrite(text, in, out, keep_spans, [&](const Piece& piece, AlignedText& changed) {
      for (size_t i = piece.begin; i < piece.end; ++i) {
        changed.append(bytes_to_chars(text.text().substr(i, 1)), text.span(i, i + 1));
      }
    });
  }
};

class Metaspace : public PreTokenizerStep {
 public:
  Metaspace(std::string replacement, PrependScheme scheme)
      : replacement_(std::move(replacement)), scheme_(scheme) {}

  void apply(AlignedText& text, const std::vector<Piece>& in, std::vector<Piece>& out,
             bool) const override {
    // Spans are kept always: PrependScheme::kFirst asks where a piece comes from.
    rewrite(text, in, out, true, [&](const Piece& piece, AlignedText& changed) {
      const std::string_view bytes = text.text().substr(piece.begin, piece.end - piece.begin);
      const uint32_t at = text.span(piece.begin, piece.begin + 1).first;
      const bool wanted =
          scheme_ == PrependScheme::kAlways || (scheme_ == PrependScheme::kFirst && at == 0);
      if (wanted && bytes[0] != ' ' && !bytes.starts_with(replacement_)) {
        changed.append(replacement_, {at, at});
      }
      for (size_t i = piece.begin; i < piece.end; ++i) {
        if (text.text()[i] == ' ') {
          changed.append(replacement_, text.span(i, i + 1));
        } else {
          changed.append_part(text, i, i + 1);
        }
      }
    });
  }

 private:
  std::string replacement_;
  PrependScheme scheme_;
};

class ScriptSplit : public PreTokenizerStep {
 public:
  void apply(AlignedText& text, const std::vector<Piece>& in, std::vector<Piece>& out,
             bool) const override {
    for (const Piece& piece : in) {
      size_t begin = piece.end;  // the peer drops what stands before the first script
      uint8_t last = kAnyScript;
      for (size_t i = piece.begin; i < piece.end;) {
        const Decoded d = decode_utf8(&text.text()[i]);
        const uint8_t script = script_class(d.code_point);
        if (script != kAnyScript && last != script) {
          if (last != kAnyScript) push(out, begin, i);
          begin = i;
          last = script;
        }
        i += d.size;
      }
      push(out, begin, piece.end);
    }
  }
};

class FixedLength : public PreTokenizerStep {
 public:
  explicit FixedLength(size_t length) : length_(length) {}

  void apply(AlignedText& text, const std::vector<Piece>& in, std::vector<Piece>& out,
             bool) const override {
    for (const Piece& piece : in) {
      for (size_t begin = piece.begin; begin < piece.end;) {
        size_t end = begin;
        for (size_t n = 0; n < length_ && end < piece.end; ++n) end += utf8_size(text.text()[end]);
        out.push_back({begin, end});
        begin = end;
      }
    }
  }

 private:
  size_t length_;
};

}  // namespace

std::unique_ptr<PreTokenizerStep> make_regex_split(Regex pattern, SplitBehavior behavior,
                                                   bool invert) {
  return std::make_unique<RegexSplit>(std::move(pattern), behavior, invert);
}
std::unique_ptr<PreTokenizerStep> make_set_split(const CodePointSet& set, SplitBehavior behavior) {
  return std::make_unique<SetSplit>(set, behavior);
}
std::unique_ptr<PreTokenizerStep> make_prefix_space() { return std::make_unique<PrefixSpace>(); }
std::unique_ptr<PreTokenizerStep> make_byte_chars() { return std::make_unique<ByteChars>(); }
std::unique_ptr<PreTokenizerStep> make_metaspace(std::string replacement, PrependScheme scheme) {
  return std::make_unique<Metaspace>(std::move(replacement), scheme);
}
std::unique_ptr<PreTokenizerStep> make_script_split() { return std::make_unique<ScriptSplit>(); }
std::unique_ptr<PreTokenizerStep> make_fixed_length(size_t length) {
  return std::make_unique<FixedLength>(length);
}

}  // namespace lorry::tokenizer

// The syntax tree of a pattern: what the parser hands to the compiler. Private to regex*.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tokenizer/unicode.h"

namespace lorry::tokenizer::regex {

constexpr uint32_t kUnbounded = UINT32_MAX;

enum class Greed { kGreedy, kLazy, kPossessive };

enum class Kind {
  kEmpty,
  kSet,          ///< one character of `set`
  kSequence,     ///< `children` one after the other
  kAlternation,  ///< the first of `children` that leads to a match
  kRepeat,       ///< children[0], `min` to `max` times
  kLookAhead,
  kLookBehind,
  kAtomic,
  kTextBegin,
  kTextEnd,
  kTextEndOrNewline,
  kLineBegin,
  kLineEnd,
  kWordBoundary,
  kNotWordBoundary,
};

struct Node {
  Kind kind = Kind::kEmpty;
  CodePointSet set;
  std::vector<std::unique_ptr<Node>> children;
  uint32_t min = 0, max = 0;
  Greed greed = Greed::kGreedy;
  bool negative = false;  ///< look-around
};

Result<std::unique_ptr<Node>> parse(std::string_view pattern);

}  // namespace lorry::tokenizer::regex

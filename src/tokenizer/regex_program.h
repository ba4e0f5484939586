// What a pattern is compiled to: private to regex*.cc.
#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <vector>

#include "tokenizer/regex.h"
#include "tokenizer/regex_ast.h"
#include "tokenizer/regex_dfa.h"

namespace lorry::tokenizer {
namespace regex {

using ByteSet = std::bitset<256>;

enum class Op : uint8_t {
  kByte,      // text[pos] == byte
  kSet,       // one character of sets[arg]
  kRun,       // min to max characters of sets[arg], by greed
  kSplit,     // try `next`, then `other`; `first` says which bytes can start each
  kJump,      // to next
  kMark,      // registers[arg] = pos
  kProgress,  // fail if pos == registers[arg]: a loop whose body matched nothing
  kLook,      // sub-program at `other`, go on at `next`
  kAtomic,    // sub-program at `other`, go on at `next` behind what it took
  kAssert,    // a Kind in arg
  kAtMark,    // pos == look-behind's end
  kMatch,
};

struct Instruction {
  Op op;
  Greed greed = Greed::kGreedy;
  bool negative = false;
  bool filter_next = false, filter_other = false;  // kSplit: whether the first-byte sets hold
  uint8_t byte = 0;
  uint32_t arg = 0;
  uint32_t min = 0, max = 0;  // kRun; look-behind: lengths in characters
  uint32_t next = 0, other = 0;
  uint32_t first_next = 0, first_other = 0;  // into Program::firsts
};

struct FirstBytes {
  ByteSet bytes;
  bool nullable = false;  // may match without reading a byte
};

}  // namespace regex

struct Regex::Program {
  std::vector<regex::Instruction> code;
  std::vector<CodePointTable> sets;
  std::vector<regex::ByteSet> firsts;
  uint32_t registers = 0;
  regex::FirstBytes first;
  std::optional<RegexDfa> dfa;  ///< the same pattern, faster, where that is possible
  std::optional<Regex::Runs> runs;
};

}  // namespace lorry::tokenizer

// Any bytes as a text.
#include <cstdlib>
#include <vector>

#include "small_tokenizers.h"
#include "tokenizer/tokenizer.h"

namespace {

using lorry::tokenizer::Tokenizer;

std::vector<std::shared_ptr<const Tokenizer>> load_all() {
  std::vector<std::shared_ptr<const Tokenizer>> out;
  for (const std::string_view json : lorry::fuzz::kTokenizers) {
    auto tokenizer = Tokenizer::load(json, "");
    if (!tokenizer.ok()) std::abort();
    out.push_back(*tokenizer);
  }
  return out;
}

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto tokenizers = load_all();
  if (size == 0) return 0;
  const auto& tokenizer = tokenizers[data[0] % tokenizers.size()];
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto encoding = tokenizer->encode_with_offsets(text, false);
  require(encoding.ids == tokenizer->encode(text, false));
  require(encoding.ids.size() == encoding.offsets.size());
  for (const auto& [begin, end] : encoding.offsets) require(begin <= end && end <= text.size());
  lorry::tokenizer::StreamDecoder stream(tokenizer, false);
  std::string streamed;
  for (const int32_t id : encoding.ids) streamed += stream.push(id);
  streamed += stream.finish();
  require(streamed == tokenizer->decode(encoding.ids, false));
  return 0;
}

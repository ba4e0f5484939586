// Any bytes as tokenizer.json: an error, or a tokenizer that encodes and decodes.
#include "tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = lorry::tokenizer::Tokenizer::load(json, "");
  if (!tokenizer.ok()) return 0;
  const auto encoding =
      (*tokenizer)->encode_with_offsets("Hello  w\xC3\xB6rld\n12 <s> \xFF!", true);
  (void)(*tokenizer)->decode(encoding.ids, true);
  (void)(*tokenizer)->decode(encoding.ids, false);
  return 0;
}

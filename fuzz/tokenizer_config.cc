// Any bytes as tokenizer_config.json beside a small tokenizer.json.
#include <span>

#include "small_tokenizers.h"
#include "tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view config(reinterpret_cast<const char*>(data), size);
  // One of each kind of model: the others would only take time to load.
  for (const std::string_view json : std::span(lorry::fuzz::kTokenizers).first(4)) {
    const auto tokenizer = lorry::tokenizer::Tokenizer::load(json, config);
    if (!tokenizer.ok()) continue;
    (void)(*tokenizer)->decode((*tokenizer)->encode("ab <s> a\xCC\x81 <extra_id_0>", true), true);
    (void)(*tokenizer)->eos_id();
  }
  return 0;
}

#include "generate/kv_cache.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace lorry::generate {
namespace {

std::vector<at::Tensor> layers_of(const std::vector<model::LayerCache>& layout, int64_t tokens,
                                  int64_t model::LayerCache::*dim, at::ScalarType dtype,
                                  at::Device device) {
  std::vector<at::Tensor> out;
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  for (const model::LayerCache& layer : layout) {
    out.push_back(at::empty(
        {KvCache::blocks_for(tokens), KvCache::kBlockTokens, layer.kv_heads, layer.*dim}, options));
  }
  return out;
}

}  // namespace

KvCache::KvCache(const std::vector<model::LayerCache>& layout, int64_t max_tokens,
                 at::ScalarType dtype, const std::vector<at::Device>& devices)
    : parts_(make_parts(layout, max_tokens, dtype, devices)), pool_(blocks_for(max_tokens)) {}

std::vector<KvCache::Part> KvCache::make_parts(const std::vector<model::LayerCache>& layout,
                                               int64_t max_tokens, at::ScalarType dtype,
                                               const std::vector<at::Device>& devices) {
  std::vector<Part> parts;
  for (const at::Device device : devices) {
    parts.push_back({layers_of(layout, max_tokens, &model::LayerCache::key_dim, dtype, device),
                     layers_of(layout, max_tokens, &model::LayerCache::value_dim, dtype, device)});
  }
  return parts;
}

int64_t KvCache::bytes() const {
  size_t bytes = 0;
  for (const Part& part : parts_) {
    for (const auto* layers : {&part.keys, &part.values}) {
      for (const at::Tensor& layer : *layers) bytes += layer.nbytes();
    }
  }
  return static_cast<int64_t>(bytes);
}

bool KvCache::reserve(Sequence& sequence, int64_t tokens) {
  const auto held = static_cast<int64_t>(sequence.blocks.size());
  const int64_t missing = std::max<int64_t>(blocks_for(tokens) - held, 0);
  const bool partly_filled = tokens > sequence.length && sequence.length % kBlockTokens != 0;
  const auto last = static_cast<size_t>(sequence.length / kBlockTokens);
  const bool copies = partly_filled && pool_.is_shared(sequence.blocks[last]);
  if (missing + (copies ? 1 : 0) > pool_.free_count()) return false;
  if (copies) {
    const int32_t shared = sequence.blocks[last];
    sequence.blocks[last] = pool_.allocate();
    copy_block(shared, sequence.blocks[last]);
    pool_.release(shared);
  }
  for (int64_t i = 0; i < missing; ++i) sequence.blocks.push_back(pool_.allocate());
  return true;
}

void KvCache::release(Sequence& sequence) { truncate(sequence, 0); }

void KvCache::truncate(Sequence& sequence, int64_t length) {
  const auto kept = static_cast<size_t>(blocks_for(length));
  while (sequence.blocks.size() > kept) {
    pool_.release(sequence.blocks.back());
    sequence.blocks.pop_back();
  }
  sequence.length = length;
}

KvCache::Sequence KvCache::fork(const Sequence& sequence) {
  Sequence copy;
  const auto filled = static_cast<size_t>(blocks_for(sequence.length));
  attach(copy, std::span(sequence.blocks).first(filled));
  copy.length = sequence.length;
  return copy;
}

void KvCache::attach(Sequence& sequence, std::span<const int32_t> blocks) {
  for (const int32_t block : blocks) pool_.retain(block);
  sequence.blocks.assign(blocks.begin(), blocks.end());
  sequence.length = static_cast<int64_t>(blocks.size()) * kBlockTokens;
}

void KvCache::copy_block(int32_t from, int32_t to) {
  for (const Part& part : parts_) {
    for (const auto* tensors : {&part.keys, &part.values}) {
      for (const at::Tensor& layer : *tensors) layer[to].copy_(layer[from]);
    }
  }
}

}  // namespace lorry::generate

// Model-ready shards: `input_ids` and `assistant_masks`, what training reads.
#pragma once

#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "data/shard.h"

namespace lorry::data {

/// {input_ids: list<int32>, assistant_masks: list<int8>}, with `text: string` on request.
std::shared_ptr<arrow::Schema> token_schema(bool with_text);

/// Views into a mapped shard, valid as long as the reader.
struct TokenRow {
  std::span<const int32_t> input_ids;
  std::span<const int8_t> assistant_masks;  ///< same length; 1 where the loss counts
};

/// Reads token rows by position in constant time. Thread-safe.
class TokenShardReader {
 public:
  static Result<std::shared_ptr<TokenShardReader>> open(const store::Bucket& bucket,
                                                        const std::string& dir);
  int64_t rows() const { return shard_->rows(); }
  TokenRow row(int64_t row) const;

 private:
  explicit TokenShardReader(std::shared_ptr<ShardReader> shard) : shard_(std::move(shard)) {}
  std::shared_ptr<ShardReader> shard_;
};

}  // namespace lorry::data

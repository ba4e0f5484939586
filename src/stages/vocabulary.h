// Tokens that the tokenizer knows and the model has no embedding for: a tokenizer may define more
// ids than the embedding has rows, and only those that data or template really use are wrong.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "chat/chat.h"

namespace lorry::stages {

/// Rows of the model's embedding, by its config.json; nullopt where it does not say.
std::optional<int64_t> embedding_rows(const Json& config);

/// The rows if the tokenizer knows ids beyond them, so that they must be looked at; else nullopt.
std::optional<int64_t> rows_to_check(const chat::Chat& chat, const Json& config);

/// Invalid input if an id is not below `rows`; names its token and the way on.
Result<> check_ids(const chat::Chat& chat, std::span<const int32_t> ids, int64_t rows);

/// Fails if the template writes a token without a row into any conversation, since nothing could be
/// trained then; warns of tokens without a row that data may hold. `name`: the model's.
Result<> check_vocabulary(const chat::Chat& chat, const Json& config, const std::string& name);

}  // namespace lorry::stages

// How far an import has come.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>  // Json as a member
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/reader.h"
#include "stages/ledger.h"

namespace lorry::stages {

/// Where an import stands after each whole shard, kept in raw/{dataset}/progress.json: all that an
/// interrupted one needs to go on.
struct ImportProgress {
  Json reader;                      ///< what the reader had learnt
  std::vector<int64_t> shard_rows;  ///< of the whole shards
  data::Place place;                ///< of the batch in which the next shard begins
  int64_t skip = 0;                 ///< rows of that batch that are done
  Ledger ledger;
  std::string imported_on;  ///< of an import that this one replaces; empty: none

  /// `inputs`: what decides the output.
  Json to_json(const Json& inputs) const;
  /// nullopt for what another version wrote.
  static std::optional<ImportProgress> from_json(const Json& json);
};

}  // namespace lorry::stages

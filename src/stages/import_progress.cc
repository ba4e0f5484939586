#include "stages/import_progress.h"

namespace lorry::stages {

Json ImportProgress::to_json(const Json& inputs) const {
  Json json;
  json["inputs"] = inputs;
  json["reader"] = reader;
  json["shard_rows"] = shard_rows;
  json["place"] = Json{{"file", place.file},
                       {"offset", place.offset},
                       {"line", place.line},
                       {"row", place.row},
                       {"skip", skip}};
  json["ledger"] = ledger.to_json();
  json["imported_on"] = imported_on;
  return json;
}

std::optional<ImportProgress> ImportProgress::from_json(const Json& json) {
  try {
    ImportProgress progress;
    progress.reader = json.at("reader");
    progress.shard_rows = json.at("shard_rows").get<std::vector<int64_t>>();
    const Json& place = json.at("place");
    progress.place = data::Place{place.at("file").get<int64_t>(), place.at("offset").get<int64_t>(),
                                 place.at("line").get<int64_t>(), place.at("row").get<int64_t>()};
    progress.skip = place.at("skip").get<int64_t>();
    progress.ledger = Ledger::from_json(json.at("ledger"));
    progress.imported_on = json.value("imported_on", "");
    return progress;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;  // the import begins again
  }
}

}  // namespace lorry::stages

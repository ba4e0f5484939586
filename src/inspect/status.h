// `lorry status`: what a bucket holds, told by its manifests alone.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "store/bucket.h"

namespace lorry::inspect {

/// {bucket, datasets: [{name, raw, standardized, rows}], models: [{name, state, architecture,
/// bytes}], runs: [{model, dataset, run_name, pretokenize, train, rows, tokens, target_tokens,
/// steps, loss, next}], at_work: [{writes, verb, state, host, pid, since, last_seen_seconds, rank,
/// world_size}]}. A stage is "done", "stale" (done with data that has changed since), "partial" or
/// "missing"; a run is a model and a data set that are both there, and each run with a name
/// that they have. Numbers that are not known are
/// left out.
Result<Json> read_status(const store::Bucket& bucket);

/// The same as a table for people.
std::string format_status(const Json& status);

}  // namespace lorry::inspect

// What makes a run: digests of base, data and starting adapter, and the options that decide the
// result. A checkpoint or a published result belongs to one identity. Free of libtorch.
#pragma once

#include <string>

#include "base/json.h"

namespace lorry::train {

/// Whether two identities ({"base", "data", "options", ["adapter"]}) give the same result. A step
/// is batch_size * gradient_accumulation_steps rows, and how they are cut into micro-batches
/// changes nothing, so only their product counts.
bool same_run(const Json& before, const Json& now);

/// In what two identities differ, for a message: "learning_rate was 0.0002, is 0.001; the data
/// changed".
std::string identity_difference(const Json& before, const Json& now);

}  // namespace lorry::train

// Can the Hugging Face Hub be reached, and does it know our token?
#pragma once

#include "inspect/doctor_checks.h"

namespace lorry::inspect {

/// Asks the Hub (HF_ENDPOINT) who we are. Not reaching it is a warning, for data and models may
/// come from elsewhere; a token that it refuses is a failure, for with that it refuses public
/// repositories too. Asks nothing if HF_HUB_OFFLINE is set.
Checked check_hub(double seconds);

}  // namespace lorry::inspect

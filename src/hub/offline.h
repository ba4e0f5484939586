// HF_HUB_OFFLINE: the Hub is not asked; models that `huggingface_hub` has kept can still be used.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "hub/hub.h"

namespace lorry::hub {

/// HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is 1, on, yes or true, as `huggingface_hub` reads them.
bool is_offline();

/// Says that the Hub is not asked for `id`, and what works without it.
Error offline(RepoKind kind, const std::string& id);

/// The directory of a repository's snapshot in the cache of `huggingface_hub` (HF_HUB_CACHE,
/// HF_HOME/hub, ~/.cache/huggingface/hub), and its commit. `revision`: a branch, a tag or a commit;
/// empty: main. nullopt if it is not there. A snapshot may lack files that nobody has asked for.
struct Snapshot {
  std::string directory, commit;
};
std::optional<Snapshot> cached_snapshot(RepoKind kind, const std::string& id,
                                        const std::string& revision);

}  // namespace lorry::hub

// Where things lie in a bucket (docs/bucket.md). Names may contain '/' (Hub ids).
#pragma once

#include <cstdint>
#include <string>

namespace lorry::store {

std::string raw_dir(const std::string& dataset);
std::string standardized_dir(const std::string& dataset);
std::string model_dir(const std::string& model);
std::string model_ready_dir(const std::string& model, const std::string& dataset);
std::string checkpoints_dir(const std::string& model, const std::string& dataset);
std::string done_dir(const std::string& model, const std::string& dataset);
/// done/{model}/{dataset}/lora_model and .../fused
std::string adapter_dir(const std::string& model, const std::string& dataset);
std::string fused_dir(const std::string& model, const std::string& dataset);
/// Where processes that share the bucket say what they are at work on (claim.h).
std::string claims_dir();
/// {dir}/{shard}
std::string shard_dir(const std::string& dir, int64_t shard);

}  // namespace lorry::store

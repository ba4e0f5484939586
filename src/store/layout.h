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
/// A run's name for checkpoints_dir, done_dir and what is below: "dataset@run"; `dataset` alone for
/// the run without a name. No data set's name has an '@'.
std::string run_of(const std::string& dataset, const std::string& run_name);
/// done/{model}/{dataset}/lora_model and .../fused
std::string adapter_dir(const std::string& model, const std::string& dataset);
std::string fused_dir(const std::string& model, const std::string& dataset);
/// Where processes that share the bucket say what they are at work on (claim.h).
std::string claims_dir();
/// {dir}/{shard}
std::string shard_dir(const std::string& dir, int64_t shard);

}  // namespace lorry::store

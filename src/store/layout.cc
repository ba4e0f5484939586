#include "store/layout.h"

namespace lorry::store {

std::string raw_dir(const std::string& dataset) { return "raw/" + dataset; }
std::string standardized_dir(const std::string& dataset) { return "standardized/" + dataset; }
std::string model_dir(const std::string& model) { return "models/" + model; }
std::string model_ready_dir(const std::string& model, const std::string& dataset) {
  return "model-ready/" + model + "/" + dataset;
}
std::string checkpoints_dir(const std::string& model, const std::string& dataset) {
  return "checkpoints/" + model + "/" + dataset;
}
std::string done_dir(const std::string& model, const std::string& dataset) {
  return "done/" + model + "/" + dataset;
}
std::string run_of(const std::string& dataset, const std::string& run_name) {
  return run_name.empty() ? dataset : dataset + "@" + run_name;
}
std::string adapter_dir(const std::string& model, const std::string& dataset) {
  return done_dir(model, dataset) + "/lora_model";
}
std::string fused_dir(const std::string& model, const std::string& dataset) {
  return done_dir(model, dataset) + "/fused";
}
std::string claims_dir() { return "claims"; }
std::string shard_dir(const std::string& dir, int64_t shard) {
  return dir + "/" + std::to_string(shard);
}

}  // namespace lorry::store

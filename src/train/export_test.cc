// What an export takes of memory, and that it writes what the parts of it say.
#include "train/export.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <fstream>
#include <sstream>

#include "train/test_model.h"

namespace lorry::train {
namespace {

/// A line of /proc/self/status in bytes; 0 where there is none.
int64_t process_bytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with(field + ":")) continue;
    std::istringstream words(line.substr(field.size() + 1));
    int64_t kilobytes = 0;
    words >> kilobytes;
    return kilobytes << 10;
  }
  return 0;
}

TEST(Export, AMergeHoldsNoMoreThanItsLargestTensors) {
  TestBucket bucket;
  // 243 MB in tensors of at most 9.4 MB.
  const TestModel m{.layers = 6, .hidden = 1024, .width = 2304, .dtype = at::kFloat};
  write_checkpoint(**bucket, m);
  const auto spec = model::load_model_spec(**bucket, "models/m");
  ASSERT_TRUE(spec.ok());
  const auto adapter = *model::LoraAdapter::create(*spec, {}, 1, at::kCPU);

  // Freed tensors go back to the system at once, so that the peak does not depend on how glibc's
  // heap was used before.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  // Once before it is measured: code and buffers of libtorch that stay take memory too.
  ASSERT_TRUE(export_merged(**bucket, *spec, *adapter, "models/m", "fused", 100'000'000).ok());
  std::ofstream("/proc/self/clear_refs") << "5";  // forgets the peak
  const int64_t before = process_bytes("VmRSS");
  const auto merged = export_merged(**bucket, *spec, *adapter, "models/m", "fused", 100'000'000);
  ASSERT_TRUE(merged.ok()) << merged.error().message;
  const int64_t peak = process_bytes("VmHWM");
  if (before == 0 || peak == 0) GTEST_SKIP() << "no /proc here";
  EXPECT_LT(peak - before, int64_t{64} << 20);
  EXPECT_TRUE(*(*bucket)->exists("fused/model.safetensors.index.json"));
}

TEST(SafetensorsWriter, RefusesWhatWasNotAnnounced) {
  TestBucket bucket;
  auto writer = *model::SafetensorsWriter::create(**bucket, "a.safetensors",
                                                  {{"x", at::kFloat, {2}}, {"y", at::kFloat, {1}}});
  EXPECT_FALSE(writer->add(at::ones({3})).ok());
  writer = *model::SafetensorsWriter::create(**bucket, "a.safetensors", {{"x", at::kFloat, {2}}});
  EXPECT_FALSE(writer->commit().ok());
  ASSERT_TRUE(writer->add(at::ones({2})).ok());
  EXPECT_FALSE(writer->add(at::ones({2})).ok());
  EXPECT_TRUE(writer->commit().ok());
}

TEST(SafetensorsReader, InOrderGivesTheSameTensors) {
  TestBucket bucket;
  write_checkpoint(**bucket, {.dtype = at::kBFloat16});
  using Reader = model::SafetensorsReader;
  const auto mapped = *Reader::open(**bucket, "models/m", "model");
  const auto read = *Reader::open(**bucket, "models/m", "model", Reader::Access::kInOrder);
  for (const auto& name : mapped->names()) {
    EXPECT_TRUE(at::equal(*mapped->tensor(name), *read->tensor(name))) << name;
  }
}

}  // namespace
}  // namespace lorry::train

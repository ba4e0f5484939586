// Costs against sums made by hand, and SkyPilot's catalogue as it is and broken.
#include "inspect/prices.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace lorry::inspect {
namespace {

namespace fs = std::filesystem;

PricedMachine machine(const std::string& name, double price) {
  return {name, Offer{price, "here"}, std::nullopt};
}

TEST(Costs, AreOperationsOverPeakTimesPrice) {
  Job job;
  job.flops = 989e12 * 0.25 * 3600 * 2;  // two hours of an H100 at a quarter of its peak
  job.tokens = 1;
  job.utilization = 0.25;
  job.gpu_memory = int64_t{30} << 30;
  auto h100 = machine("H100", 3);
  h100.spot = Offer{1.5, "there"};
  const Json costs = estimate_costs({machine("L4", 1), h100}, job);
  const Json& first = costs["machines"][0];
  EXPECT_EQ(first["name"], "H100") << "the L4 is too small";
  EXPECT_NEAR(first["hours"].get<double>(), 2, 1e-9);
  EXPECT_NEAR(first["on_demand"]["cost"].get<double>(), 6, 1e-9);
  EXPECT_NEAR(first["spot"]["cost"].get<double>(), 3, 1e-9);
  const Json& second = costs["machines"][1];
  EXPECT_EQ(second["fits"], false);
  EXPECT_NEAR(second["hours"].get<double>(), 2 * 989.0 / 121, 1e-9);
}

TEST(Costs, OfAMeasuredRateAreTokensOverIt) {
  Job job;
  job.tokens = 36e6;
  job.tokens_per_second = 5000;
  const Json costs = estimate_costs({machine(kMeasuredMachine, 0.5)}, job);
  EXPECT_DOUBLE_EQ(costs["machines"][0]["hours"].get<double>(), 2);
  EXPECT_DOUBLE_EQ(costs["machines"][0]["on_demand"]["cost"].get<double>(), 1);
  EXPECT_FALSE(costs.contains("utilization"));
}

TEST(Costs, TheCheapestComesFirstBySpotToo) {
  Job job;
  job.flops = 1e18;
  auto spot = machine("A100", 4);
  spot.spot = Offer{0.1, "there"};
  const Json costs = estimate_costs({machine("H100", 4), spot, machine("A10G", 4)}, job);
  EXPECT_EQ(costs["machines"][0]["name"], "A100");
  EXPECT_EQ(costs["machines"][1]["name"], "H100");
  EXPECT_EQ(costs["machines"][2]["name"], "A10G");
}

TEST(Costs, WhatIsNotKnownIsLeftOut) {
  const Json costs = estimate_costs({machine("H100", 3), {.name = "T4"}}, Job());
  EXPECT_FALSE(costs["machines"][0].contains("hours"));
  EXPECT_FALSE(costs["machines"][0].contains("fits"));
  EXPECT_FALSE(costs["machines"][1].contains("on_demand"));
  EXPECT_NE(format_costs(costs).find("$3.00/h"), std::string::npos);
}

TEST(Prices, NamesAreFoundAsSkyPilotSpellsThem) {
  EXPECT_STREQ(find_gpu("a100-80gb")->name, "A100-80GB");
  EXPECT_STREQ(find_gpu("A100-80GB-SXM")->name, "A100-80GB");
  EXPECT_EQ(find_gpu("A1000"), nullptr);
  EXPECT_EQ(find_gpu(""), nullptr);
}

std::string refusal(const std::vector<std::pair<std::string, std::string>>& prices) {
  const auto parsed = parse_prices(prices);
  return parsed.ok() ? "" : parsed.error().message;
}

TEST(Prices, WhatIsNoPriceIsRefusedByName) {
  EXPECT_EQ(refusal({{"H100", "2.5"}, {"cpu", "0"}}), "");
  EXPECT_NE(refusal({{"A1000", "1"}}).find("'A1000' is not one of T4, L4"), std::string::npos);
  EXPECT_NE(refusal({{"H100", "-1"}}).find("below 0"), std::string::npos);
  EXPECT_NE(refusal({{"H100", "1$"}}).find("not a number"), std::string::npos);
  EXPECT_NE(refusal({{"H100", "nan"}}).find("not a number"), std::string::npos);
  EXPECT_NE(refusal({{"H100", "1"}, {"h100", "2"}}).find("twice"), std::string::npos);
}

class Catalog : public ::testing::Test {
 protected:
  Catalog() : root_(fs::temp_directory_path() / "lorry_prices_test") { fs::remove_all(root_); }
  ~Catalog() override { fs::remove_all(root_); }
  void put(const std::string& cloud, const std::string& text) {
    fs::create_directories(root_ / cloud);
    std::ofstream(root_ / cloud / "vms.csv") << text;
  }
  std::string refusal() {
    const auto read = read_catalog(root_.string());
    return read.ok() ? "" : read.error().message;
  }
  const fs::path root_;
};

constexpr char kHeader[] =
    "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,"
    "Region\n";
const std::string kAws =
    kHeader + std::string(
                  "g6,L4,1.0,8,32,\"{'Gpus': [{'Name': 'L4', \"\"x\"\": 1}]}\","
                  "0.978,0.4,us-east-1\n"
                  "g6,L4,1.0,8,32,,0.8,,us-west-2\n"
                  "m6i,,,8,32,,0.384,0.15,us-east-1\n"
                  "p5,H100,8.0,192,2048,,55,20,us-east-1\n");

TEST_F(Catalog, GivesTheCheapestOneOfEachGpuOverAllClouds) {
  put("aws", kAws);
  put("runpod",
      "InstanceType,Region,SpotPrice,Price,AcceleratorName,AcceleratorCount\r\n"
      "1x_L4,US,.22,.43,L4,1\r\n1x_V100,US,.1,.2,V100,1\r\n");
  fs::create_directories(root_ / "common");
  const auto machines = read_catalog(root_.string());
  ASSERT_TRUE(machines.ok()) << machines.error().message;
  ASSERT_EQ(machines->size(), 1u) << "eight H100 are no single one, a V100 is not in our table";
  const auto& l4 = machines->front();
  EXPECT_EQ(l4.name, "L4");
  EXPECT_DOUBLE_EQ(l4.on_demand->usd_per_hour, 0.43);
  EXPECT_EQ(l4.on_demand->where, "runpod 1x_L4 in US");
  EXPECT_DOUBLE_EQ(l4.spot->usd_per_hour, 0.22);
}

TEST_F(Catalog, ABrokenLineIsNamed) {
  put("aws", kAws + "g6,L4,1.0,8\n");
  EXPECT_NE(refusal().find("aws/vms.csv line 6: 4 fields, but the first line names 9"),
            std::string::npos);
  put("aws", kAws + "g6,L4,1.0,8,32,,cheap,,us\n");
  EXPECT_NE(refusal().find("line 6: Price 'cheap' is no price"), std::string::npos);
  put("aws", kAws + "g6,L4,1.0,8,32,,1,-2,us\n");
  EXPECT_NE(refusal().find("SpotPrice '-2' is no price"), std::string::npos);
  put("aws", kAws + "g6,L4,many,8,32,,1,1,us\n");
  EXPECT_NE(refusal().find("AcceleratorCount 'many'"), std::string::npos);
  put("aws", kAws + "g6,\"L4,1.0,8,32,,1,1,us\n");
  EXPECT_NE(refusal().find("a quote is not closed"), std::string::npos);
  put("aws", "InstanceType,Price\n");
  EXPECT_NE(refusal().find("there is no column AcceleratorName"), std::string::npos);
  put("aws", "");
  EXPECT_NE(refusal().find("the file is empty"), std::string::npos);
}

TEST_F(Catalog, AFolderThatIsNoneIsRefused) {
  EXPECT_NE(refusal().find("is no catalogue of SkyPilot"), std::string::npos);
}

}  // namespace
}  // namespace lorry::inspect

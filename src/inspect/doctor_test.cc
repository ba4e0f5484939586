#include "inspect/doctor.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "inspect/doctor_bucket.h"
#include "inspect/doctor_checks.h"
#include "inspect/doctor_gpu.h"
#include "inspect/doctor_libraries.h"
#include "inspect/doctor_machine.h"

namespace lorry::inspect {
namespace {

namespace fs = std::filesystem;

/// A folder that stands for the root of a machine, or any other.
class DoctorFiles : public ::testing::Test {
 protected:
  DoctorFiles() : root_(fs::temp_directory_path() / "lorry_doctor_test") {
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  ~DoctorFiles() override { fs::remove_all(root_); }
  void put(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  const fs::path root_;
};

constexpr int64_t kGiB = int64_t{1} << 30;
constexpr char kMeminfo[] = "MemTotal:       67108864 kB\nMemAvailable:   33554432 kB\n";

using Machine = DoctorFiles;

TEST_F(Machine, ReadsProcessorAndMemory) {
  put("proc/cpuinfo",
      "processor\t: 0\nmodel name\t: A Fine CPU\nflags\t\t: fpu avx2 avx512f\n\nprocessor\t: 1\n");
  put("proc/meminfo", kMeminfo);
  const auto machine = read_machine(root_);
  EXPECT_EQ(machine.cpu, "A Fine CPU");
  EXPECT_EQ(machine.flags, (std::vector<std::string>{"fpu", "avx2", "avx512f"}));
  EXPECT_EQ(machine.memory.total, 64 * kGiB);
  EXPECT_EQ(machine.memory.available, 32 * kGiB);
  EXPECT_EQ(machine.memory.limit, 0);
  EXPECT_EQ(machine.quota, 0);
}

TEST_F(Machine, TheTightestCgroupAboveTheProcessCounts) {
  put("proc/meminfo", kMeminfo);
  put("proc/self/cgroup", "0::/outer/inner\n");
  put("sys/fs/cgroup/outer/memory.max", "4294967296\n");
  put("sys/fs/cgroup/outer/memory.current", "2147483648\n");
  put("sys/fs/cgroup/outer/memory.stat", "anon 1\ninactive_file 1073741824\n");
  put("sys/fs/cgroup/outer/inner/memory.max", "max\n");
  put("sys/fs/cgroup/outer/inner/cpu.max", "150000 100000\n");
  put("sys/fs/cgroup/outer/cpu.max", "400000 100000\n");
  const auto machine = read_machine(root_);
  EXPECT_EQ(machine.memory.limit, 4 * kGiB);
  EXPECT_EQ(machine.memory.used, kGiB) << "what can be dropped is not used";
  EXPECT_DOUBLE_EQ(machine.quota, 1.5);
}

TEST_F(Machine, ReadsTheFirstVersionOfCgroups) {
  put("proc/meminfo", kMeminfo);
  put("proc/self/cgroup", "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n1:name=systemd:/\n");
  put("sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us", "250000\n");
  put("sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us", "100000\n");
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  put("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "2147483648\n");
  put("sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes", "1073741824\n");
  const auto machine = read_machine(root_);
  EXPECT_DOUBLE_EQ(machine.quota, 2.5);
  EXPECT_EQ(machine.memory.limit, 2 * kGiB);
  EXPECT_EQ(machine.memory.used, kGiB);
}

TEST(CpuMax, IsQuotaOverPeriod) {
  EXPECT_DOUBLE_EQ(parse_cpu_max("200000 100000\n").value_or(0), 2);
  EXPECT_FALSE(parse_cpu_max("max 100000\n").has_value());
  EXPECT_FALSE(parse_cpu_max("").has_value());
  EXPECT_FALSE(parse_cpu_max("100000 0").has_value());
}

TEST(MemoryFinding, SaysTheLimitOfTheContainerAndFailsWhenItIsUsedUp) {
  MachineFacts machine{.cores = 8, .allowed_cores = 8};
  machine.memory = {.total = 64 * kGiB, .available = 60 * kGiB};
  EXPECT_EQ(check_machine(machine).findings[1].health, Health::kOk);
  machine.memory.limit = 4 * kGiB;
  machine.memory.used = 4 * kGiB - (256 << 20);
  const auto finding = check_machine(machine).findings[1];
  EXPECT_EQ(finding.health, Health::kFail);
  EXPECT_NE(finding.text.find("cgroup"), std::string::npos);
}

using Disks = DoctorFiles;

TEST_F(Disks, OneDiskIsOneLineAndAMissingFolderIsNamed) {
  const auto one = check_disks(root_.string(), (root_ / "not" / "yet").string());
  ASSERT_EQ(one.findings.size(), 1u);
  EXPECT_NE(one.findings[0].text.find("not/yet"), std::string::npos);
  const auto missing = check_disks((root_ / "gone").string(), "");
  ASSERT_EQ(missing.findings.size(), 1u);
  EXPECT_EQ(missing.findings[0].health, Health::kFail);
  EXPECT_NE(missing.findings[0].text.find("gone"), std::string::npos);
}

// ---- GPU ---------------------------------------------------------------------------------------

GpuFacts one_gpu(const std::string& driver, int capability = 80) {
  GpuFacts facts;
  facts.library = true;
  facts.driver = driver;
  facts.gpus = {{"NVIDIA A100", 80 * kGiB, 79 * kGiB, capability}};
  return facts;
}

TorchFacts torch_for(const std::string& cuda) {
  TorchFacts facts;
  facts.version = "2.11.0+x";
  facts.cuda = cuda;
  return facts;
}

std::vector<Health> healths(const std::vector<Finding>& findings) {
  std::vector<Health> out;
  for (const auto& finding : findings) out.push_back(finding.health);
  return out;
}

const std::vector<Health> kWell = {Health::kOk, Health::kOk};
const std::vector<Health> kDriverFails = {Health::kOk, Health::kFail};
const std::vector<Health> kDriverWarns = {Health::kOk, Health::kWarn};

TEST(JudgeGpus, EachCudaNeedsItsDriver) {
  const auto cuda13 = torch_for("13.0"), cuda12 = torch_for("12.8");
  EXPECT_EQ(healths(judge_gpus(one_gpu("580.95.05"), &cuda13, "auto")), kWell);
  EXPECT_EQ(healths(judge_gpus(one_gpu("575.57.08"), &cuda13, "auto")), kDriverFails);
  EXPECT_EQ(healths(judge_gpus(one_gpu("575.57.08"), &cuda12, "auto")), kWell);
  EXPECT_EQ(healths(judge_gpus(one_gpu("525.60.13"), &cuda12, "auto")), kWell);
  EXPECT_EQ(healths(judge_gpus(one_gpu("515.105.01"), &cuda12, "auto")), kDriverFails);
}

TEST(JudgeGpus, AnOldDriverIsToldBothWaysOut) {
  const auto cuda13 = torch_for("13.0");
  const auto driver = judge_gpus(one_gpu("550.54.15"), &cuda13, "auto")[1];
  EXPECT_NE(driver.text.find("550.54.15 is too old"), std::string::npos);
  EXPECT_NE(driver.advice.find("driver 580"), std::string::npos);
  EXPECT_NE(driver.advice.find("CUDA 12 build"), std::string::npos);
  const auto ancient = judge_gpus(one_gpu("470.1"), &cuda13, "auto")[1];
  EXPECT_EQ(ancient.advice.find("CUDA 12"), std::string::npos) << "that one would not run either";
}

TEST(JudgeGpus, ALibtorchForTheCpuIsAWarningUnlessCudaIsAskedFor) {
  const auto cpu = torch_for("");
  EXPECT_EQ(healths(judge_gpus(one_gpu("580.1"), &cpu, "auto")), kDriverWarns);
  EXPECT_EQ(healths(judge_gpus(one_gpu("580.1"), &cpu, "cuda")), kDriverFails);
  EXPECT_EQ(healths(judge_gpus(one_gpu("580.1"), &cpu, "cpu")), std::vector<Health>{Health::kOk});
}

TEST(JudgeGpus, GpusThatCuda13HasNoKernelsForAreNamed) {
  const auto cuda13 = torch_for("13.0"), cuda12 = torch_for("12.6");
  EXPECT_EQ(healths(judge_gpus(one_gpu("580.1", 70), &cuda13, "auto")), kDriverFails);
  EXPECT_EQ(healths(judge_gpus(one_gpu("580.1", 70), &cuda12, "auto")), kWell);
  EXPECT_EQ(healths(judge_gpus(one_gpu("580.1", 75), &cuda13, "auto")), kWell);
}

TEST(JudgeGpus, ACudaPartThatDoesNotLoadFails) {
  auto torch = torch_for("13.0");
  torch.cuda_error = "libcudnn.so.9: cannot open shared object file";
  const auto findings = judge_gpus(one_gpu("580.1"), &torch, "auto");
  EXPECT_EQ(healths(findings), kDriverFails);
  EXPECT_NE(findings[1].text.find("libcudnn.so.9"), std::string::npos);
}

TEST(JudgeGpus, NoGpuIsAWarningAFailureOrNothingAsTheDeviceSays) {
  const auto torch = torch_for("13.0");
  EXPECT_EQ(judge_gpus({}, &torch, "auto")[0].health, Health::kWarn);
  EXPECT_EQ(judge_gpus({}, &torch, "cuda")[0].health, Health::kFail);
  EXPECT_EQ(judge_gpus({}, &torch, "cpu")[0].health, Health::kOk);
  EXPECT_EQ(judge_gpus({}, nullptr, "auto")[0].health, Health::kOk) << "--data-only";
}

TEST(JudgeGpus, WhyThereIsNoneIsTold) {
  const auto torch = torch_for("13.0");
  GpuFacts sick;
  sick.library = true;
  sick.error = "Driver/library version mismatch";
  EXPECT_EQ(judge_gpus(sick, &torch, "auto")[0].health, Health::kFail);
  EXPECT_NE(judge_gpus(sick, &torch, "auto")[0].text.find("mismatch"), std::string::npos);
  GpuFacts container;
  container.kernel_driver = "580.95.05";
  EXPECT_NE(judge_gpus(container, &torch, "auto")[0].advice.find("--gpus all"), std::string::npos);
  GpuFacts bare;
  bare.card = true;
  EXPECT_NE(judge_gpus(bare, &torch, "auto")[0].text.find("no driver"), std::string::npos);
  GpuFacts hidden = one_gpu("580.1");
  hidden.hidden = true;
  EXPECT_NE(judge_gpus(hidden, &torch, "cuda")[0].text.find("CUDA_VISIBLE_DEVICES"),
            std::string::npos);
}

TEST(JudgeGpus, ADeviceNumberBeyondTheLastFails) {
  const auto torch = torch_for("13.0");
  EXPECT_EQ(judge_gpus(one_gpu("580.1"), &torch, "cuda:0")[0].health, Health::kOk);
  EXPECT_EQ(judge_gpus(one_gpu("580.1"), &torch, "cuda:1")[0].health, Health::kFail);
}

TEST(JudgeGpus, EqualGpusAreCounted) {
  auto facts = one_gpu("580.1");
  facts.gpus.push_back(facts.gpus[0]);
  const auto torch = torch_for("13.0");
  EXPECT_TRUE(judge_gpus(facts, &torch, "auto")[0].text.starts_with("2 x NVIDIA A100, "));
}

TEST(GpuFacts, SurviveTheWayBetweenProcesses) {
  auto facts = one_gpu("580.1", 90);
  facts.card = true;
  facts.error = "no words";
  EXPECT_EQ(to_json(gpu_facts_from(to_json(facts))), to_json(facts));
}

// ---- libraries, clock --------------------------------------------------------------------------

using VersionFile = DoctorFiles;

TEST_F(VersionFile, IsReadAsPyTorchWritesIt) {
  TorchFacts facts;
  put("cuda.py",
      "__all__ = ['__version__', 'cuda']\n__version__ = '2.11.0+cu130'\ndebug = False\n"
      "cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n");
  read_version_file(root_ / "cuda.py", facts);
  EXPECT_EQ(facts.version, "2.11.0+cu130");
  EXPECT_EQ(facts.cuda, "13.0");
  put("cpu.py", "__version__ = '2.11.0+cpu'\ncuda: Optional[str] = None\n");
  read_version_file(root_ / "cpu.py", facts);
  EXPECT_EQ(facts.version, "2.11.0+cpu");
  EXPECT_EQ(facts.cuda, "");
}

TEST(JudgeTorch, AnotherReleaseIsWarnedOf) {
  auto facts = torch_for("13.0");
  EXPECT_EQ(judge_torch(facts).health, Health::kOk);
  facts.version = "2.12.0+cu130";
  EXPECT_EQ(judge_torch(facts).health, Health::kWarn);
  facts.error = "libtorch_cpu.so was not found";
  EXPECT_EQ(judge_torch(facts).health, Health::kFail);
}

TEST(JudgeClock, SmallDifferencesAreFine) {
  EXPECT_EQ(judge_clock(-1.2).health, Health::kOk);
  EXPECT_EQ(judge_clock(59).health, Health::kOk);
  EXPECT_NE(judge_clock(120).text.find("120 s behind"), std::string::npos);
  EXPECT_EQ(judge_clock(120).health, Health::kWarn);
  EXPECT_NE(judge_clock(-3600).text.find("3600 s ahead of"), std::string::npos);
}

// ---- processes ---------------------------------------------------------------------------------

TEST(RunChecks, BringsBackFindingsAndFactsInOrder) {
  std::vector<Check> checks;
  for (int i = 0; i < 20; ++i)
    checks.push_back(
        {"n", 60, "", [i] {
           // More than a pipe holds at once.
           return Checked{{warn("n", std::string(100'000, 'x'), "advice")}, {{"number", i}}};
         }});
  const auto results = run_checks(checks);
  ASSERT_TRUE(results.ok());
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ((*results)[i].facts["number"], i);
    ASSERT_EQ((*results)[i].findings.size(), 1u);
    EXPECT_EQ((*results)[i].findings[0].health, Health::kWarn);
    EXPECT_EQ((*results)[i].findings[0].text.size(), 100'000u);
    EXPECT_EQ((*results)[i].findings[0].advice, "advice");
  }
}

TEST(RunChecks, OneThatHangsOneThatCrashesAndOneThatThrowsAreFailuresOfTheirOwn) {
  std::vector<Check> checks = {
      {"hangs", 0.2, "pull the plug",
       []() -> Checked {
         for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
       }},
      {"crashes", 60, "",
       []() -> Checked {
         ::raise(SIGKILL);
         return {};
       }},
      {"throws", 60, "", []() -> Checked { throw std::runtime_error("words"); }},
      {"works", 60, "", [] { return Checked{{ok("works", "well")}}; }}};
  const auto results = run_checks(checks);
  ASSERT_TRUE(results.ok());
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ((*results)[i].findings.size(), 1u);
    EXPECT_EQ((*results)[i].findings[0].health, Health::kFail);
    EXPECT_EQ((*results)[i].findings[0].subject, checks[i].subject);
  }
  EXPECT_EQ((*results)[0].findings[0].advice, "pull the plug");
  EXPECT_NE((*results)[1].findings[0].text.find("Killed"), std::string::npos);
  EXPECT_EQ((*results)[2].findings[0].text, "words");
  EXPECT_EQ((*results)[3].findings[0].health, Health::kOk);
}

TEST(FormatFindings, OneLineEachWhateverLibrariesSay) {
  const std::string text = format_findings({ok("a", "fine"), fail("b", "two\nlines", "do it")});
  EXPECT_EQ(text, "ok    a         fine\nFAIL  b         two lines; do it\n");
}

}  // namespace
}  // namespace lorry::inspect

#include "cli/flags.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "cli/bucket_uri.h"

namespace lorry::cli {
namespace {

using Strings = std::vector<std::string>;

/// A verb with one flag of each kind.
struct Verb {
  std::string name = "default";
  std::string kind = "linear";
  int64_t steps = 7;
  uint64_t seed = 1;
  double rate = 0.5;
  int64_t memory = 1 << 20;
  bool fresh = false, packing = false, shuffle = true;
  Strings modules;
  std::vector<std::pair<std::string, std::string>> sets, columns;
  Strings sources;
  Flags flags{"train", "trains", "  lorry train"};

  explicit Verb(bool needs_source = false) {
    flags.text("--name", name, "NAME", "a name", "TEST_FLAG_NAME");
    flags.choice("--kind", kind, {"linear", "cosine"}, "a kind");
    flags.integer("--steps", steps, at_least(1), "steps");
    flags.unsigned_integer("--seed", seed, "seed");
    flags.real("--learning-rate", rate, above(0), "rate");
    flags.bytes("--memory", memory, at_least(1000), "memory");
    flags.on("--fresh", fresh, "fresh");
    flags.toggle("--packing", packing, "packing");
    flags.toggle("--shuffle", shuffle, "shuffle");
    flags.list("--target-modules", modules, "A,B", "modules");
    flags.pairs("--set", sets, false, "N=V", "sets");
    flags.pairs("--columns", columns, true, "R=C,...", "columns");
    flags.positional("SOURCE", sources, needs_source, "sources");
  }

  Result<bool> parse(Strings args) { return flags.parse(std::move(args), *Settings::load("/")); }
  std::string problem(Strings args) {
    const auto parsed = parse(std::move(args));
    if (parsed.ok()) return "";
    EXPECT_EQ(parsed.error().kind, ErrorKind::kUsage);
    return parsed.error().message;
  }
};

TEST(Flags, KeepTheirDefaultsWhenNothingIsGiven) {
  Verb verb;
  ASSERT_TRUE(verb.parse({}).ok());
  EXPECT_EQ(verb.name, "default");
  EXPECT_EQ(verb.steps, 7);
  EXPECT_TRUE(verb.shuffle);
  EXPECT_FALSE(verb.flags.given("--name"));
}

TEST(Flags, AnEarlierNameOfAChoiceStillMeansWhatItMeant) {
  Verb verb;
  verb.flags.former_choice("--shape", "--kind", verb.kind, {{"round", "cosine"}});
  EXPECT_EQ(verb.flags.help().find("--shape"), std::string::npos);
  ASSERT_TRUE(verb.parse({"--shape", "round"}).ok());
  EXPECT_EQ(verb.kind, "cosine");
  EXPECT_NE(verb.problem({"--shape", "square"}).find("its name is now --kind"), std::string::npos);
}

TEST(Flags, TakeValuesOfEveryKind) {
  Verb verb;
  const auto parsed = verb.parse({"a.jsonl",
                                  "--name=x",
                                  "--kind",
                                  "cosine",
                                  "--steps",
                                  "3",
                                  "--seed",
                                  "18446744073709551615",
                                  "--learning-rate",
                                  "2e-4",
                                  "--memory",
                                  "2GiB",
                                  "--fresh",
                                  "--packing",
                                  "--no-shuffle",
                                  "--target-modules",
                                  "q_proj,k_proj",
                                  "--target-modules",
                                  "v_proj",
                                  "--set",
                                  "a=b,c=d",
                                  "--columns",
                                  "prompt=q,completion=a",
                                  "b.jsonl"});
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(verb.name, "x");
  EXPECT_EQ(verb.kind, "cosine");
  EXPECT_EQ(verb.steps, 3);
  EXPECT_EQ(verb.seed, 18446744073709551615u);
  EXPECT_DOUBLE_EQ(verb.rate, 2e-4);
  EXPECT_EQ(verb.memory, int64_t{2} << 30);
  EXPECT_TRUE(verb.fresh);
  EXPECT_TRUE(verb.packing);
  EXPECT_FALSE(verb.shuffle);
  EXPECT_EQ(verb.modules, (Strings{"q_proj", "k_proj", "v_proj"}));
  ASSERT_EQ(verb.sets.size(), 1u);
  EXPECT_EQ(verb.sets[0].second, "b,c=d");
  ASSERT_EQ(verb.columns.size(), 2u);
  EXPECT_EQ(verb.columns[1].first, "completion");
  EXPECT_EQ(verb.sources, (Strings{"a.jsonl", "b.jsonl"}));
}

TEST(Flags, TheLastOfARepeatedFlagCounts) {
  Verb verb;
  ASSERT_TRUE(verb.parse({"--steps", "1", "--steps", "2"}).ok());
  EXPECT_EQ(verb.steps, 2);
}

TEST(Flags, AVariableFillsInForAFlagAndIsNamedInErrors) {
  setenv("TEST_FLAG_NAME", "from-variable", 1);
  setenv("LORRY_LEARNING_RATE", "fast", 1);
  Verb verb;
  EXPECT_EQ(verb.problem({}), "LORRY_LEARNING_RATE in the environment: 'fast' is not a number");
  EXPECT_EQ(verb.problem({"--learning-rate", "1"}), "");
  EXPECT_EQ(verb.name, "from-variable");
  EXPECT_EQ(verb.flags.origin("--name"), "TEST_FLAG_NAME in the environment");
  unsetenv("LORRY_LEARNING_RATE");
  Verb other;
  ASSERT_TRUE(other.parse({"--name", "from-flag"}).ok());
  EXPECT_EQ(other.name, "from-flag");
  unsetenv("TEST_FLAG_NAME");
}

TEST(Flags, AVariableTurnsATogglesOff) {
  setenv("LORRY_SHUFFLE", "false", 1);
  Verb verb;
  ASSERT_TRUE(verb.parse({}).ok());
  EXPECT_FALSE(verb.shuffle);
  unsetenv("LORRY_SHUFFLE");
}

TEST(Flags, AnUnknownFlagGetsASuggestion) {
  Verb verb;
  EXPECT_EQ(verb.problem({"--learning-rat", "1"}),
            "unknown flag --learning-rat; did you mean --learning-rate?");
  EXPECT_EQ(verb.problem({"--leaning-rate=1"}),
            "unknown flag --leaning-rate; did you mean --learning-rate?");
  EXPECT_EQ(verb.problem({"--quantum-mode"}),
            "unknown flag --quantum-mode; see lorry train --help");
}

TEST(Flags, AValueThatIsWrongIsNamedWithItsRange) {
  Verb verb;
  EXPECT_EQ(verb.problem({"--steps", "0"}), "--steps: 0 is out of range; it must be at least 1");
  EXPECT_EQ(verb.problem({"--steps", "-1"}), "--steps: -1 is out of range; it must be at least 1");
  EXPECT_EQ(verb.problem({"--steps", "1.5"}), "--steps: '1.5' is not a whole number");
  EXPECT_EQ(verb.problem({"--learning-rate", "0"}),
            "--learning-rate: 0 is out of range; it must be greater than 0");
  EXPECT_EQ(verb.problem({"--learning-rate", "nan"}), "--learning-rate: 'nan' is not a number");
  EXPECT_EQ(verb.problem({"--kind", "sine"}), "--kind: 'sine' is not one of linear, cosine");
  EXPECT_EQ(verb.problem({"--seed", "-1"}), "--seed: '-1' is not a whole number of 0 or more");
  EXPECT_EQ(verb.problem({"--set", "x"}), "--set: 'x' is not name=value");
  EXPECT_EQ(verb.problem({"--memory", "much"}),
            "--memory: 'much' is not a size such as 512MB or 2GiB");
}

TEST(Flags, AFlagWithoutItsValueIsWrongUsage) {
  Verb verb;
  EXPECT_NE(verb.problem({"--steps"}).find("--steps"), std::string::npos);
}

TEST(Flags, ANameMustBeOneThatABucketCanHold) {
  for (const char* name : {"chats", "org/chats", "2024", "a b", "FineTome-100k.v2"})
    EXPECT_TRUE(check_bucket_name(name).ok()) << name;
  for (const char* name :
       {"../chats", "/chats", "chats/", "a//b", ".hidden", "a/.", "org/7", "a\nb"})
    EXPECT_EQ(check_bucket_name(name).error().kind, ErrorKind::kUsage) << name;
}

TEST(Flags, AMissingSourceIsWrongUsageUnlessItIsOptional) {
  EXPECT_EQ(Verb(true).problem({}), "SOURCE is missing; see lorry train --help");
  EXPECT_EQ(Verb(false).problem({}), "");
}

TEST(Flags, HelpIsAskedForAndShowsDefaultsAndExample) {
  Verb verb;
  const auto parsed = verb.parse({"--help"});
  ASSERT_TRUE(parsed.ok());
  EXPECT_FALSE(*parsed);
  const std::string help = verb.flags.help();
  for (const char* part :
       {"--steps N=7", "--packing,--no-packing", "off by default", "lorry train"})
    EXPECT_NE(help.find(part), std::string::npos) << part << " in " << help;
  EXPECT_EQ(help.find("{false}"), std::string::npos);
}

TEST(Nearest, FindsSlipsAndRefusesStrangers) {
  const Strings verbs = {"train", "serve", "import-model"};
  EXPECT_EQ(nearest("trian", verbs), "train");
  EXPECT_EQ(nearest("import_model", verbs), "import-model");
  EXPECT_EQ(nearest("quantise", verbs), std::nullopt);
}

TEST(BucketUri, ABareNameInBucketNameMeansS3) {
  EXPECT_EQ(bucket_uri("", false), "./bucket");
  EXPECT_EQ(bucket_uri("mine", true), "mine");
  EXPECT_EQ(bucket_uri("./mine", false), "./mine");
  EXPECT_EQ(bucket_uri("/data/mine", false), "/data/mine");
  EXPECT_EQ(bucket_uri("mine", false), "s3://mine");
  EXPECT_EQ(bucket_uri("gs://mine/part", false), "gs://mine/part");
  EXPECT_EQ(bucket_uri("s3://mine", true), "s3://mine");
}

}  // namespace
}  // namespace lorry::cli

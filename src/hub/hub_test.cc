#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "hub/dataset_files.h"
#include "hub/formats.h"
#include "hub/git_blob.h"
#include "hub/glob.h"
#include "hub/hub.h"
#include "hub/patterns.h"
#include "hub/yaml.h"

namespace lorry::hub {
namespace {

using Paths = std::vector<std::string>;

std::string yaml(const std::string& text) {
  const auto json = parse_yaml(text, "test");
  return json.ok() ? dump_json(*json) : json.error().message;
}

TEST(Yaml, PlainScalarsAreResolvedAsPyYamlDoes) {
  EXPECT_EQ(yaml("[yes, Off, ~, 012, 0x1F, 1_000, 1.5, 1e3, 'yes', 2024-01-01, en]"),
            R"([true,false,null,10,31,1000,1.5,"1e3","yes","2024-01-01","en"])");
}

TEST(Yaml, MappingsListsAnchorsAndMerges) {
  EXPECT_EQ(yaml("a: &x {p: 1, q: 2}\nb:\n  <<: *x\n  q: 3\nc:\n- *x\n- |\n  text\n"),
            R"({"a":{"p":1,"q":2},"b":{"q":3,"p":1},"c":[{"p":1,"q":2},"text\n"]})");
  EXPECT_EQ(yaml(""), "null");
}

TEST(Yaml, OfAKeyThatStandsTwiceTheLastValueCounts) {
  EXPECT_EQ(yaml("a: 1\nb: 2\na: {c: 3, c: 4}"), R"({"a":{"c":4},"b":2})");
}

TEST(Yaml, ErrorsNameTheLine) {
  EXPECT_EQ(yaml("a: 1\nb: [1,\n"), "test: line 3: did not find expected node content");
  EXPECT_EQ(yaml("a: *b"), "test: line 1: no anchor &b");
}

TEST(Yaml, AliasesThatGrowWithoutMeasureAreRefused) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 10; ++i) {
    const auto before = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before;
    for (int j = 1; j < 10; ++j) bomb += ", " + before;
    bomb += "]\n";
  }
  EXPECT_NE(yaml(bomb).find("too large"), std::string::npos);
  EXPECT_NE(yaml(std::string(1000, '[')).find("too large or too deep"), std::string::npos);
}

TEST(Glob, FollowsFsspec) {
  EXPECT_TRUE(glob_match("data/*.csv", "data/a.csv"));
  EXPECT_FALSE(glob_match("data/*.csv", "data/b/a.csv"));
  EXPECT_TRUE(glob_match("**/a.csv", "a.csv"));
  EXPECT_TRUE(glob_match("**/a.csv", "x/y/a.csv"));
  EXPECT_TRUE(glob_match("data/**", "data/b/a.csv"));
  EXPECT_FALSE(glob_match("data/**", "data"));
  EXPECT_TRUE(glob_match("x[-._ 0-9]y?", "x-y\xC3\xA9"));
  EXPECT_FALSE(glob_match("x[!-]y", "x-y"));
  EXPECT_TRUE(glob_match("a[b", "a[b"));
  EXPECT_TRUE(glob_match("*a*b*", "xaybz"));
  EXPECT_FALSE(glob_match("A.csv", "a.csv"));
}

TEST(Formats, TheCommonestExtensionWinsAndParquetAmongEquals) {
  EXPECT_EQ(infer_module({"a.csv", "b.parquet"}).module, "parquet");
  EXPECT_EQ(infer_module({"a.csv", "c.csv", "b.parquet"}).module, "csv");
  EXPECT_EQ(infer_module({"a.jsonl.gz"}).module, "json");
  EXPECT_EQ(infer_module({"a.png", "b.png", "metadata.jsonl"}).module, "imagefolder");
  EXPECT_EQ(infer_module({"LICENSE.md", "a.jsonl"}).module, "json");
  EXPECT_EQ(infer_module({"a.unknown"}).module, "");
}

std::string resolved(DatasetQuestion question) {
  question.what = "o/n";
  const auto files = resolve_dataset(question);
  if (!files.ok()) return files.error().message;
  std::string text = files->config + "/" + files->split + ":";
  for (const auto& path : files->paths) text += " " + path;
  return text;
}

TEST(DatasetFiles, NamesTellSplits) {
  EXPECT_EQ(resolved({.paths = {"data/test-00000-of-00001.parquet",
                                "data/train-00000-of-00002-ab.parquet",
                                "data/train-00001-of-00002-cd.parquet", "README.md"}}),
            "default/train: data/train-00000-of-00002-ab.parquet "
            "data/train-00001-of-00002-cd.parquet");
  EXPECT_EQ(resolved({.paths = {"b.jsonl", "a.jsonl", ".git/x.jsonl", "__pycache__/y.jsonl"}}),
            "default/train: a.jsonl b.jsonl");
  EXPECT_EQ(resolved({.paths = {"test.jsonl", "val.jsonl"}, .split = "validation"}),
            "default/validation: val.jsonl");
  EXPECT_EQ(resolved({.paths = {"test.jsonl", "val.jsonl"}}),
            "o/n (config default) has no split train; choose with --split: validation, test");
}

TEST(DatasetFiles, TheReadmesConfigsGoBeforeNames) {
  DatasetQuestion question;
  question.paths = {"a/x.jsonl", "a/y.jsonl", "b/train.jsonl", "b/test.jsonl"};
  question.readme =
      "---\nconfigs:\n- config_name: first\n  data_files:\n  - split: train\n    path: a/*\n"
      "- config_name: second\n  data_dir: b\n---\n# text\n";
  EXPECT_EQ(resolved(question), "o/n has several configs; choose with --config: first, second");
  question.config = "first";
  EXPECT_EQ(resolved(question), "first/train: a/x.jsonl a/y.jsonl");
  question.config = "second";
  question.split = "test";
  EXPECT_EQ(resolved(question), "second/test: b/test.jsonl");
  question.split = "none";
  EXPECT_EQ(resolved(question),
            "o/n (config second) has no split 'none'; --split takes one of: train, test");
  question.config = "third";
  EXPECT_EQ(resolved(question), "o/n has no config 'third'; --config takes one of: first, second");
}

TEST(DatasetFiles, TheReadmesMetadataAreFoundAsTheHubFindsThem) {
  const std::string configs =
      "configs:\n- config_name: c\n  data_files:\n  - split: train\n    path: b.jsonl\n";
  const auto of = [](std::string readme) {
    return resolved({.paths = {"a.jsonl", "b.jsonl"}, .readme = std::move(readme)});
  };
  for (const char* before : {"", "\xEF\xBB\xBF", " \n\n"}) {
    for (const char* after : {"---", "--- \t", "---\n# text\n", "---  \r\n# text"}) {
      EXPECT_EQ(of(std::string(before) + "---\n" + configs + after), "c/train: b.jsonl")
          << before << after;
    }
  }
  for (const char* after : {"", "----\n", "--- x\n"}) {
    EXPECT_EQ(of("---\n" + configs + after), "default/train: a.jsonl b.jsonl") << after;
  }
}

TEST(DatasetFiles, ParametersThatAreNotFollowedAreNamed) {
  const auto of = [](const std::string& parameters) {
    return resolved({.paths = {"a.csv"},
                     .readme = "---\nconfigs:\n- config_name: c\n  data_files: a.csv\n" +
                               parameters + "---\n"});
  };
  EXPECT_NE(of("  sep: ;\n  names: [p, q]\n").find("sep, names"), std::string::npos);
  EXPECT_NE(of("  sep: \"\\t\"\n").find("sep"), std::string::npos);
  EXPECT_EQ(of("  dtype: str\n  default: true\n  sep: ','\n  encoding: utf-8\n"), "c/train: a.csv");
  EXPECT_EQ(resolved({.paths = {"a.tsv"},
                      .readme = "---\nconfigs:\n- config_name: c\n  data_files: a.tsv\n"
                                "  sep: \"\\t\"\n---\n"}),
            "c/train: a.tsv");
}

TEST(DatasetFiles, WhatIsNoRowsIsSaid) {
  EXPECT_NE(resolved({.paths = {"n.py", "README.md"}}).find("loading script"), std::string::npos);
  EXPECT_NE(resolved({.paths = {"a.png", "b.png"}}).find("imagefolder"), std::string::npos);
  EXPECT_NE(resolved({.paths = {"notes.doc"}}).find("no data files"), std::string::npos);
  EXPECT_NE(resolved({.paths = {"a.csv"}, .readme = "---\nconfigs: 3\n---\n"}).find("not a list"),
            std::string::npos);
}

TEST(GitBlob, IsWhatGitHashObjectPrints) {
  GitBlob empty(0);
  EXPECT_EQ(empty.hex(), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
  const std::string text(1000, 'a');
  GitBlob blob(1000);
  blob.update(std::string_view(text).substr(0, 123));
  blob.update(std::string_view(text).substr(123));
  EXPECT_EQ(blob.hex(), "a50be72b20f0e3f078d252e8e56b11b4bec67509");
}

TEST(RepoId, IsOwnerAndName) {
  EXPECT_TRUE(is_repo_id("Qwen/Qwen2.5-0.5B"));
  EXPECT_FALSE(is_repo_id("./data"));
  EXPECT_FALSE(is_repo_id("a/b/c"));
  EXPECT_FALSE(is_repo_id("gpt2"));
  EXPECT_FALSE(is_repo_id("../x"));
}

}  // namespace
}  // namespace lorry::hub

#include "stages/import_model.h"

#include "base/cancel.h"
#include "sources/model_files.h"
#include "stages/stage_fixture.h"

namespace lorry::stages {
namespace {

namespace fs = std::filesystem;

class ImportModel : public StageTest {
 protected:
  void SetUp() override {
    StageTest::SetUp();
    // Architectures are the engine's matter; here there is none.
    setenv("LORRY_ENGINE", "/nonexistent/liblorry_engine.so", 1);
    source_ = model_source();
    options_.bucket = bucket_;
    options_.source = source_.string();
  }

  std::string problem() {
    const auto done = import_model(options_);
    EXPECT_FALSE(*bucket_->exists("models/tiny/info.json"));
    return done.ok() ? "" : done.error().message;
  }

  fs::path source_;
  ImportModelOptions options_;
};

TEST_F(ImportModel, CopiesTheModelsFilesAndNothingElse) {
  const auto done = import_model(options_);
  ASSERT_TRUE(done.ok()) << done.error().message;
  EXPECT_EQ(done->model, "tiny");
  EXPECT_EQ(done->architecture, "Qwen2ForCausalLM");
  EXPECT_EQ(done->files, 4);
  EXPECT_EQ(*bucket_->read("models/tiny/model.safetensors"), safetensors({"a", "b"}));
  EXPECT_FALSE(*bucket_->exists("models/tiny/notes.txt"));
  const auto info = *bucket_->read_info("models/tiny");
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ((*info)["files"].size(), 4u);
  EXPECT_EQ((*info)["files"][1]["name"], "model.safetensors");
  EXPECT_EQ((*info)["files"][0]["sha256"].get<std::string>().size(), 64u);
}

TEST_F(ImportModel, ATokenBeyondTheEmbeddingIsRefusedWhereTheTemplateWritesIt) {
  write(source_ / "config.json", R"({"model_type": "qwen2", "vocab_size": 257})");
  const std::string said = problem();
  EXPECT_NE(said.find("the chat template: token 257 (\"<|end|>\") has no row"), said.npos) << said;
  EXPECT_NE(said.find("resize"), said.npos) << said;
  // One that only data could hold is no reason to refuse the model.
  write(source_ / "config.json", R"({"text_config": {"vocab_size": 258}})");
  write(source_ / "tokenizer_config.json",
        dump_json({{"eos_token", "<new>"}, {"chat_template", kTemplate}}));
  EXPECT_TRUE(import_model(options_).ok());
}

TEST_F(ImportModel, ASecondTimeDoesNothing) {
  ASSERT_TRUE(import_model(options_).ok());
  fs::last_write_time(source_ / "config.json", fs::file_time_type::clock::now());
  const auto again = import_model(options_);
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->up_to_date) << "touched, but the same bytes";
}

TEST_F(ImportModel, AChangedFileIsImportedAgainAndARemovedOneIsGone) {
  write(source_ / "generation_config.json", "{}");
  ASSERT_TRUE(import_model(options_).ok());
  fs::remove(source_ / "generation_config.json");
  write(source_ / "model.safetensors", safetensors({"a", "c"}));
  const auto again = import_model(options_);
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE(again->up_to_date);
  EXPECT_EQ(*bucket_->read("models/tiny/model.safetensors"), safetensors({"a", "c"}));
  EXPECT_FALSE(*bucket_->exists("models/tiny/generation_config.json"));
}

TEST_F(ImportModel, WhatAnInterruptedCopyLeftIsNotAModel) {
  int calls = 0;
  options_.progress = [&](int64_t, int64_t) {
    if (++calls == 2) request_cancel(15);
  };
  const auto stopped = import_model(options_);
  reset_cancel();
  ASSERT_FALSE(stopped.ok());
  EXPECT_EQ(stopped.error().kind, ErrorKind::kCancelled);
  EXPECT_FALSE(*bucket_->exists("models/tiny/info.json"));
  options_.progress = nullptr;
  ASSERT_TRUE(import_model(options_).ok());
  EXPECT_TRUE(*bucket_->exists("models/tiny/info.json"));
}

TEST_F(ImportModel, ATemplateOfTheUsersReplacesTheModels) {
  write(root_ / "mine.jinja", "mine");
  options_.chat_template = (root_ / "mine.jinja").string();
  ASSERT_TRUE(import_model(options_).ok());
  EXPECT_EQ(*bucket_->read("models/tiny/chat_template.jinja"), "mine");
}

TEST_F(ImportModel, ATruncatedFileIsNamedWithItsBytes) {
  const auto whole = safetensors({"a", "b"});
  write(source_ / "model.safetensors", whole.substr(0, whole.size() - 3));
  EXPECT_EQ(problem(), (source_ / "model.safetensors").string() +
                           " is truncated: " + std::to_string(whole.size() - 3) + " bytes of " +
                           std::to_string(whole.size()) + "; fetch it again");
  write(source_ / "model.safetensors", whole.substr(0, 20));
  EXPECT_NE(problem().find("is truncated: 20 bytes, its header alone needs"), std::string::npos);
  write(source_ / "model.safetensors", "abc");
  EXPECT_NE(problem().find("is truncated: 3 bytes"), std::string::npos);
  write(source_ / "model.safetensors", std::string(64, 'x'));
  EXPECT_NE(problem().find("is not a safetensors file"), std::string::npos);
}

TEST_F(ImportModel, AnIndexMustTellTheTruth) {
  fs::rename(source_ / "model.safetensors", source_ / "part-1.safetensors");
  const auto index = [&](const std::string& tensor, const std::string& file) {
    write(source_ / "model.safetensors.index.json",
          dump_json({{"weight_map", {{"a", "part-1.safetensors"}, {tensor, file}}}}));
  };
  index("b", "part-2.safetensors");
  EXPECT_NE(problem().find("part-2.safetensors is missing"), std::string::npos);
  index("c", "part-1.safetensors");
  EXPECT_NE(problem().find("has no tensor c"), std::string::npos);
  index("b", "part-1.safetensors");
  const auto done = import_model(options_);
  ASSERT_TRUE(done.ok()) << done.error().message;
  EXPECT_TRUE(*bucket_->exists("models/tiny/part-1.safetensors"));
  EXPECT_TRUE(*bucket_->exists("models/tiny/model.safetensors.index.json"));
}

TEST_F(ImportModel, WhatIsNoModelDirectoryIsRefusedInItsOwnWords) {
  write(source_ / "config.json", "{broken");
  EXPECT_NE(problem().find("config.json: not valid JSON at line 1"), std::string::npos);
  fs::remove(source_ / "config.json");
  EXPECT_NE(problem().find("it has no config.json"), std::string::npos);
  write(source_ / "adapter_config.json", "{}");
  EXPECT_NE(problem().find("holds a PEFT adapter"), std::string::npos);
  options_.source = "ftp://host/model";
  EXPECT_NE(problem().find("a model is a directory, a Hub id"), std::string::npos);
  options_.source = (source_ / "nowhere").string();
  EXPECT_NE(problem().find("there is no directory"), std::string::npos);
}

TEST_F(ImportModel, MissingWeightsAndTokenizersAreNamed) {
  fs::remove(source_ / "tokenizer.json");
  EXPECT_NE(problem().find("has no tokenizer.json"), std::string::npos);
  fs::remove(source_ / "model.safetensors");
  EXPECT_NE(problem().find("has no weights"), std::string::npos);
  write(source_ / "pytorch_model.bin", "x");
  EXPECT_NE(problem().find("pytorch_model.bin are not supported"), std::string::npos);
}

}  // namespace
}  // namespace lorry::stages

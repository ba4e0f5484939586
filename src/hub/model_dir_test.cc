#include "hub/model_dir.h"

#include <arrow/io/interfaces.h>
#include <gtest/gtest.h>
#include <unistd.h>  // getpid

#include <cstring>
#include <filesystem>

namespace lorry::hub {
namespace {

namespace fs = std::filesystem;

/// A safetensors file with this header and `data` bytes after it.
std::string file_of(const Json& header, size_t data) {
  const std::string text = dump_json(header);
  const uint64_t size = text.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &size, 8);
  return bytes + text + std::string(data, '\1');
}

Json tensor(const std::string& dtype, std::vector<int64_t> shape, uint64_t begin, uint64_t end) {
  return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, end}}};
}

class ModelDirTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    root_ = fs::temp_directory_path() /
            ("lorry_" + std::to_string(getpid()) + "_model_dir_" + info->name());
    fs::remove_all(root_);
    auto bucket = store::Bucket::open(root_.string(), true);
    ASSERT_TRUE(bucket.ok()) << bucket.error().message;
    bucket_ = *bucket;
    put("config.json", R"({"model_type": "qwen2"})");
  }
  void TearDown() override { fs::remove_all(root_); }

  void put(const std::string& name, const std::string& text) {
    ASSERT_TRUE(bucket_->write("m/" + name, text).ok());
  }
  /// The weights of model.safetensors, one after the other.
  void put_weights(const std::vector<std::pair<std::string, std::string>>& dtype_of) {
    Json header = {{"__metadata__", {{"format", "pt"}}}};
    uint64_t at = 0;
    for (const auto& [name, dtype] : dtype_of) {
      const uint64_t bytes = 3 * uint64_t(*element_bytes(dtype));
      header[name] = tensor(dtype, {3}, at, at + bytes);
      at += bytes;
    }
    put("model.safetensors", file_of(header, at));
  }
  std::string stored() { return *ModelDir::open(*bucket_, "m")->stored_dtype(); }
  std::string problem(const std::string& bytes) {
    put("model.safetensors", bytes);
    const auto opened = open_checkpoint(*bucket_, "m", "model");
    return opened.ok() ? "" : opened.error().message;
  }

  fs::path root_;
  std::shared_ptr<store::Bucket> bucket_;
};

TEST_F(ModelDirTest, ReadsConfigurationAndTextFiles) {
  const auto bare = ModelDir::open(*bucket_, "m");
  ASSERT_TRUE(bare.ok()) << bare.error().message;
  EXPECT_EQ(bare->config()["model_type"], "qwen2");
  EXPECT_TRUE(bare->generation_config().is_null());
  put("generation_config.json", R"({"eos_token_id": 5})");
  put("chat_template.jinja", "{{ messages }}");
  const auto model = ModelDir::open(*bucket_, "m");
  EXPECT_EQ(model->generation_config()["eos_token_id"], 5);
  EXPECT_EQ(**model->text_files()("chat_template.jinja"), "{{ messages }}");
  EXPECT_FALSE(model->text_files()("tokenizer.json")->has_value());
}

TEST_F(ModelDirTest, ConfigurationThatIsMissingOrBrokenIsNamed) {
  EXPECT_EQ(ModelDir::open(*bucket_, "other").error().message,
            "other: no config.json; is this a model's directory?");
  put("generation_config.json", "{");
  EXPECT_NE(ModelDir::open(*bucket_, "m").error().message.find("m/generation_config.json"),
            std::string::npos);
}

TEST_F(ModelDirTest, TheStoredDtypeIsTheEmbeddingsElseThatOfMostBytes) {
  put_weights({{"a", "F32"}, {"b", "F32"}, {"model.embed_tokens.weight", "BF16"}});
  EXPECT_EQ(stored(), "bfloat16");
  put_weights({{"language_model.model.embed_tokens.weight", "F16"}, {"z", "F32"}});
  EXPECT_EQ(stored(), "float16");
  put_weights({{"a", "F16"}, {"b", "F16"}, {"c", "F16"}, {"norm", "F32"}, {"q", "I64"}});
  EXPECT_EQ(stored(), "float16");
  put_weights({{"model.embed_tokens.weight", "U8"}, {"norm", "BF16"}});
  EXPECT_EQ(stored(), "bfloat16");
  put_weights({{"a", "U8"}});
  EXPECT_EQ(stored(), "float32");
}

TEST_F(ModelDirTest, GivesEachTensorItsPlaceInItsFile) {
  const std::string one = file_of({{"a", tensor("F32", {2, 3}, 0, 24)}}, 24);
  const std::string two =
      file_of({{"b", tensor("BF16", {4}, 0, 8)}, {"c", tensor("F4", {4}, 8, 10)}}, 10);
  put("1.safetensors", one);
  put("2.safetensors", two);
  put("model.safetensors.index.json",
      dump_json({{"weight_map",
                  {{"a", "1.safetensors"}, {"b", "2.safetensors"}, {"c", "2.safetensors"}}}}));
  const auto opened = open_checkpoint(*bucket_, "m", "model");
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  ASSERT_EQ(opened->files.size(), 2u);
  EXPECT_EQ(opened->files[1].path, "m/2.safetensors");
  ASSERT_EQ(opened->tensors.size(), 3u);
  const auto& a = opened->tensors.at("a");
  EXPECT_EQ(a.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(a.begin, one.size() - 24);
  EXPECT_EQ(a.end, one.size());
  const auto& c = opened->tensors.at("c");
  EXPECT_EQ(c.file, 1u);
  EXPECT_EQ(c.dtype, "F4");
  EXPECT_EQ(c.end, two.size());
}

TEST_F(ModelDirTest, AHeaderLargerThanTheFirstReadIsReadWhole) {
  Json header;
  for (int i = 0; i < 10000; ++i)
    header["layer." + std::to_string(i)] = tensor("U8", {1}, uint64_t(i), uint64_t(i) + 1);
  const std::string bytes = file_of(header, 10000);
  ASSERT_GT(bytes.size(), size_t{256 << 10});
  put("model.safetensors", bytes);
  const auto opened = open_checkpoint(*bucket_, "m", "model");
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  EXPECT_EQ(opened->tensors.size(), 10000u);
  EXPECT_EQ(opened->tensors.at("layer.9999").end, bytes.size());
}

TEST_F(ModelDirTest, BrokenFilesAreNamedWithWhatIsWrong) {
  const std::string whole = file_of({{"a", tensor("F32", {2}, 0, 8)}}, 8);
  EXPECT_EQ(problem(whole), "");
  EXPECT_EQ(problem(whole.substr(0, whole.size() - 3)),
            "m/model.safetensors is truncated: " + std::to_string(whole.size() - 3) + " bytes of " +
                std::to_string(whole.size()) + "; fetch it again");
  EXPECT_NE(problem(whole + "x").find("its header says " + std::to_string(whole.size())),
            std::string::npos);
  EXPECT_NE(problem(whole.substr(0, 20)).find("its header alone needs"), std::string::npos);
  EXPECT_NE(problem("abc").find("truncated: 3 bytes"), std::string::npos);
  EXPECT_NE(problem(std::string(64, 'x')).find("is not a safetensors file"), std::string::npos);
  EXPECT_NE(problem(file_of(Json::array(), 0)).find("is not a safetensors file"),
            std::string::npos);
  const auto entry = [&](const Json& json) { return problem(file_of({{"a", json}}, 8)); };
  EXPECT_EQ(entry(tensor("F32", {3}, 0, 8)),
            "m/model.safetensors: tensor a has a shape that its data_offsets disagree with");
  EXPECT_NE(entry(tensor("F32", {int64_t{1} << 60, 64}, 0, 8)).find("disagree"), std::string::npos);
  EXPECT_NE(entry(tensor("F32", {-2}, 0, 8)).find("no valid shape"), std::string::npos);
  EXPECT_NE(entry(tensor("F32", {2}, 8, 0)).find("no valid data_offsets"), std::string::npos);
  EXPECT_NE(entry({{"shape", {2}}}).find("no valid dtype"), std::string::npos);
  EXPECT_NE(entry(7).find("is not an object"), std::string::npos);
}

TEST_F(ModelDirTest, WeightsThatAreNotThereAreNamed) {
  const auto problem = [&] { return open_checkpoint(*bucket_, "m", "model").error(); };
  EXPECT_EQ(problem().message,
            "m: neither model.safetensors nor model.safetensors.index.json is there");
  put("pytorch_model.bin", "x");
  EXPECT_EQ(problem().kind, ErrorKind::kUnsupported);
  put("model.safetensors.index.json", R"({"weight_map": {"a": "part-1.safetensors"}})");
  EXPECT_NE(problem().message.find("m/part-1.safetensors: missing, though the index names it"),
            std::string::npos);
  for (const char* bad : {R"({"weight_map": {}})", R"({"weight_map": {"a": "../x"}})",
                          R"({"weight_map": {"a": "/etc/x"}})", R"({"weight_map": {"a": 1}})"}) {
    put("model.safetensors.index.json", bad);
    EXPECT_EQ(problem().kind, ErrorKind::kCorruptData) << bad;
  }
}

}  // namespace
}  // namespace lorry::hub

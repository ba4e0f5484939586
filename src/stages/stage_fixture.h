// For tests of the stages: a bucket in a fresh directory, and a tiny model and data set in it.
#pragma once

#include <arrow/api.h>
#include <gtest/gtest.h>
#include <unistd.h>  // getpid

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/shard.h"
#include "store/bucket.h"

namespace lorry::stages {

class StageTest : public testing::Test {
 protected:
  using Turns = std::vector<std::pair<std::string, std::string>>;  // role, content

  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    root_ = std::filesystem::temp_directory_path() / ("lorry_" + std::to_string(getpid()) + "_" +
                                                      info->test_suite_name() + "_" + info->name());
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_);
    auto bucket = store::Bucket::open((root_ / "bucket").string(), true);
    ASSERT_TRUE(bucket.ok()) << bucket.error().message;
    bucket_ = *bucket;
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  static void write(const std::filesystem::path& path, const std::string& text) {
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
  }

  /// A safetensors file with these tensors of two f32 values each.
  static std::string safetensors(const std::vector<std::string>& names) {
    Json header = Json::object();
    uint64_t at = 0;
    for (const auto& name : names) {
      header[name] = {{"dtype", "F32"}, {"shape", {2}}, {"data_offsets", {at, at + 8}}};
      at += 8;
    }
    const std::string text = dump_json(header);
    const uint64_t size = text.size();
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &size, 8);
    return bytes + text + std::string(at, '\1');
  }

  /// A byte-level BPE without merges: one token a byte, then the special tokens.
  static std::string tokenizer_json() {
    Json vocab = Json::object();
    int id = 0;
    int extra = 0;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
      const int code = printable ? byte : 256 + extra++;
      std::string spelt;
      if (code < 128)
        spelt = std::string(1, static_cast<char>(code));
      else
        spelt = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
      vocab[spelt] = id++;
    }
    Json added = Json::array();
    for (const char* token : {"<|start|>", "<|end|>"})
      added.push_back({{"id", id++},
                       {"content", token},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", true}});
    const Json byte_level = {{"type", "ByteLevel"},
                             {"add_prefix_space", false},
                             {"trim_offsets", true},
                             {"use_regex", true}};
    return dump_json({{"version", "1.0"},
                      {"truncation", nullptr},
                      {"padding", nullptr},
                      {"added_tokens", added},
                      {"normalizer", nullptr},
                      {"pre_tokenizer", byte_level},
                      {"post_processor", nullptr},
                      {"decoder", byte_level},
                      {"model",
                       {{"type", "BPE"},
                        {"dropout", nullptr},
                        {"unk_token", nullptr},
                        {"continuing_subword_prefix", nullptr},
                        {"end_of_word_suffix", nullptr},
                        {"fuse_unk", false},
                        {"byte_fallback", false},
                        {"vocab", vocab},
                        {"merges", Json::array()}}}});
  }

  /// Refuses a message whose role is "banned".
  static constexpr char kTemplate[] =
      "{% for m in messages %}{% if m.role == 'banned' %}{{ raise_exception('banned role') }}"
      "{% endif %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
      "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}";

  /// A directory as the Hub lays it out. The architecture is one that no test here loads.
  std::filesystem::path model_source() {
    const auto dir = root_ / "tiny";
    write(dir / "config.json", R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"})");
    write(dir / "tokenizer.json", tokenizer_json());
    write(dir / "tokenizer_config.json",
          dump_json({{"eos_token", "<|end|>"}, {"chat_template", kTemplate}}));
    write(dir / "model.safetensors", safetensors({"a", "b"}));
    write(dir / "notes.txt", "not part of a model");
    return dir;
  }

  /// models/{name}: the text side of model_source.
  void put_model(const std::string& name) {
    const std::string dir = "models/" + name;
    EXPECT_TRUE(bucket_->write(dir + "/tokenizer.json", tokenizer_json()).ok());
    EXPECT_TRUE(bucket_
                    ->write(dir + "/tokenizer_config.json",
                            dump_json({{"eos_token", "<|end|>"}, {"chat_template", kTemplate}}))
                    .ok());
    EXPECT_TRUE(
        bucket_->write_info(dir, {{"architecture", "Qwen2ForCausalLM"}, {"bytes", 5}}).ok());
  }

  /// standardized/{name} with these conversations, `per_shard` a shard.
  void put_dataset(const std::string& name, const std::vector<Turns>& rows, size_t per_shard) {
    const std::string dir = "standardized/" + name;
    int64_t shard = 0;
    for (size_t begin = 0; begin < rows.size(); begin += per_shard, ++shard) {
      const size_t end = std::min(begin + per_shard, rows.size());
      put_shard(dir + "/" + std::to_string(shard), {rows.begin() + begin, rows.begin() + end});
    }
    EXPECT_TRUE(bucket_->write_info(dir, {{"count", shard - 1}, {"rows", rows.size()}}).ok());
  }

  void put_shard(const std::string& dir, const std::vector<Turns>& rows) {
    const auto turn = arrow::struct_(
        {arrow::field("role", arrow::utf8()), arrow::field("content", arrow::utf8())});
    const auto schema = arrow::schema({arrow::field("conversations", arrow::list(turn))});
    auto role = std::make_shared<arrow::StringBuilder>();
    auto content = std::make_shared<arrow::StringBuilder>();
    auto message = std::make_shared<arrow::StructBuilder>(
        turn, arrow::default_memory_pool(),
        std::vector<std::shared_ptr<arrow::ArrayBuilder>>{role, content});
    arrow::ListBuilder list(arrow::default_memory_pool(), message);
    for (const auto& row : rows) {
      ASSERT_TRUE(list.Append().ok());
      for (const auto& [who, what] : row)
        ASSERT_TRUE((message->Append() & role->Append(who) & content->Append(what)).ok());
    }
    const auto column = list.Finish().ValueOrDie();
    auto writer = data::ShardWriter::create(bucket_, dir, schema);
    ASSERT_TRUE(writer.ok()) << writer.error().message;
    ASSERT_TRUE(
        (*writer)->write(*arrow::RecordBatch::Make(schema, column->length(), {column})).ok());
    ASSERT_TRUE((*writer)->finish().ok());
  }

  /// Path and bytes of every object under `dir`.
  std::vector<std::pair<std::string, std::string>> contents(const std::string& dir) {
    std::vector<std::pair<std::string, std::string>> all;
    const auto objects = bucket_->list(dir, true);
    for (const auto& object : *objects)
      if (!object.is_directory) all.emplace_back(object.path, *bucket_->read(object.path));
    return all;
  }

  std::filesystem::path root_;
  std::shared_ptr<store::Bucket> bucket_;
};

}  // namespace lorry::stages

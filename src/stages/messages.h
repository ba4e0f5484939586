// A row of a standardized shard as the messages that a chat template takes.
#pragma once

#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "chat/chat.h"
#include "store/bucket.h"

namespace lorry::stages {

/// What there is to encode: a conversation, or text on its own.
struct Example {
  Json messages;                ///< array of {role, content, ...}; null for plain text
  Json tools;                   ///< array or null
  std::vector<size_t> context;  ///< assistant messages that are not trained on
  std::string text;
  std::vector<chat::Segment> segments;  ///< its parts, where only some are trained on
  bool is_text = false;
};

/// From a row as data::row_to_json gives it: columns `conversations` (and `tools`, a JSON string)
/// or `text` (and `segments`, a JSON string). Absent fields (null) leave the message; `tool_calls`,
/// stored as a JSON string, is parsed; a null `content` stays null where there are tool calls.
/// `weight` "0" puts a message into `context`.
Result<Example> example_from_row(const Json& row);

/// The rows of a batch as example_from_row gives them; those that are nothing but strings, which
/// nearly all are, without a JSON value of the row between. The batch must outlive it and be valid.
/// Thread-safe.
class ExampleReader {
 public:
  explicit ExampleReader(const arrow::RecordBatch& batch);
  ~ExampleReader();
  Result<Example> at(int64_t row) const;

 private:
  struct Turns;
  const arrow::RecordBatch& batch_;
  std::unique_ptr<const Turns> turns_;  ///< null if the columns are of other types
};

/// Ids and mask as training sees them. A text on its own is trained on as a whole, or
/// those of its segments that are to be learned.
Result<chat::EncodedExample> encode(const chat::Chat& chat, const Example& example,
                                    const chat::ExampleOptions& options = {});

/// Why nothing of it is trained on, if so: "no message of the assistant".
std::string why_no_target(const chat::EncodedExample& example);

/// `message 1: "The answer"`, in one line.
std::string describe(const chat::Loss& loss);

/// Tokenizer and template of a model in the bucket.
Result<std::shared_ptr<const chat::Chat>> load_chat(const store::Bucket& bucket,
                                                    const std::string& model,
                                                    chat::TemplateSettings settings = {});

}  // namespace lorry::stages

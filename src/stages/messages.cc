#include "stages/messages.h"

#include <arrow/array.h>
#include <arrow/record_batch.h>
#include <fmt/format.h>

#include <set>
#include <vector>

#include "data/shard.h"
#include "hub/model_dir.h"
#include "store/layout.h"

namespace lorry::stages {
namespace {

/// The key of a stored message by which it is not trained on; no key of a message.
constexpr char kWeight[] = "weight", kNoWeight[] = "0";

/// A field that is stored as a JSON string; other values are taken as they are.
Result<Json> stored_json(const Json& value, std::string_view what) {
  if (!value.is_string()) return value;
  const auto& text = value.get_ref<const std::string&>();
  if (text.empty()) return Json(nullptr);
  return parse_json(text, what);
}

Result<Json> message_from(const Json& stored) {
  Json message = Json::object();
  for (const auto& [name, value] : stored.items()) {
    if (value.is_null() || name == kWeight) continue;
    if (name == "tool_calls") {
      LORRY_ASSIGN(Json calls, stored_json(value, "tool_calls"));
      if (!calls.is_null() && !calls.empty()) message[name] = std::move(calls);
    } else {
      message[name] = value;
    }
  }
  if (!message.contains("role")) return invalid_input("a message has no role");
  if (!message.contains("content")) {
    if (!message.contains("tool_calls"))
      return invalid_input(
          fmt::format("a message of {} has no content", dump_json(message["role"])));
    // In its usual place, behind the role: templates may print whole messages.
    Json ordered = Json::object();
    for (auto& [name, value] : message.items()) {
      ordered[name] = std::move(value);
      if (name == "role") ordered["content"] = nullptr;
    }
    return ordered;
  }
  return message;
}

Result<std::vector<chat::Segment>> segments_from(const std::string& stored) {
  LORRY_ASSIGN(const Json parts, parse_json(stored, "segments"));
  std::vector<chat::Segment> segments;
  for (const Json& part : parts) {
    const auto text = part.find("text"), label = part.find("label");
    if (text == part.end() || !text->is_string() || label == part.end() || !label->is_boolean())
      return invalid_input("`segments` is not a list of {label, text}");
    segments.push_back({text->get<std::string>(), label->get<bool>()});
  }
  return segments;
}

/// A batch of the columns that example_from_row looks at.
std::shared_ptr<arrow::RecordBatch> example_columns(const arrow::RecordBatch& batch) {
  std::vector<int> keep;
  for (int i = 0; i < batch.num_columns(); ++i) {
    const auto& name = batch.column_name(i);
    if (name == "conversations" || name == "tools" || name == "text" || name == "segments")
      keep.push_back(i);
  }
  return batch.SelectColumns(keep).ValueOrDie();  // the places are the batch's own
}

}  // namespace

/// `conversations` as list<struct<role, content, ...>> of strings.
struct ExampleReader::Turns {
  std::shared_ptr<const arrow::ListArray> list;
  std::shared_ptr<arrow::StructArray> turns;
  std::vector<std::string> names;
  std::vector<std::shared_ptr<arrow::StringArray>> fields;
  std::shared_ptr<arrow::Array> tools;  ///< null if there is no such column

  static std::unique_ptr<const Turns> of(const arrow::RecordBatch& batch) {
    auto found = std::make_unique<Turns>();
    const auto column = batch.GetColumnByName("conversations");
    if (!column || column->type_id() != arrow::Type::LIST) return nullptr;
    found->list = std::static_pointer_cast<const arrow::ListArray>(column);
    if (found->list->values()->type_id() != arrow::Type::STRUCT) return nullptr;
    found->turns = std::static_pointer_cast<arrow::StructArray>(found->list->values());
    for (int f = 0; f < found->turns->num_fields(); ++f) {
      const auto field = found->turns->field(f);
      if (field->type_id() != arrow::Type::STRING) return nullptr;
      found->names.push_back(found->turns->struct_type()->field(f)->name());
      found->fields.push_back(std::static_pointer_cast<arrow::StringArray>(field));
    }
    const std::set<std::string> different(found->names.begin(), found->names.end());
    if (different.size() < found->names.size()) return nullptr;
    found->tools = batch.GetColumnByName("tools");
    return found;
  }

  /// Null if something about the row is unusual.
  Json messages(int64_t row, std::vector<size_t>& context) const {
    if (list->IsNull(row) || (tools && !tools->IsNull(row))) return nullptr;
    Json all = Json::array();
    const int64_t end = list->value_offset(row) + list->value_length(row);
    for (int64_t i = list->value_offset(row); i < end; ++i) {
      if (turns->IsNull(i)) return nullptr;
      Json message = Json::object();
      bool role = false, content = false;
      for (size_t f = 0; f < fields.size(); ++f) {
        if (fields[f]->IsNull(i)) continue;
        if (names[f] == "tool_calls") return nullptr;
        if (names[f] == kWeight) {
          if (fields[f]->GetView(i) == kNoWeight) context.push_back(all.size());
          continue;
        }
        role |= names[f] == "role";
        content |= names[f] == "content";
        message.push_back({names[f], std::string(fields[f]->GetView(i))});
      }
      if (!role || !content) return nullptr;
      all.push_back(std::move(message));
    }
    return all;
  }
};

ExampleReader::ExampleReader(const arrow::RecordBatch& batch)
    : batch_(batch), turns_(Turns::of(batch)) {}
ExampleReader::~ExampleReader() = default;

Result<Example> ExampleReader::at(int64_t row) const {
  Example example;
  if (turns_) example.messages = turns_->messages(row, example.context);
  if (example.messages.is_array()) return example;
  return example_from_row(data::row_to_json(*example_columns(batch_), row));
}

Result<Example> example_from_row(const Json& row) {
  Example example;
  if (const auto conversations = row.find("conversations"); conversations != row.end()) {
    if (!conversations->is_array()) return invalid_input("`conversations` is not a list");
    example.messages = Json::array();
    for (const auto& stored : *conversations) {
      LORRY_ASSIGN(Json message, message_from(stored));
      if (stored.value(kWeight, Json()) == kNoWeight)
        example.context.push_back(example.messages.size());
      example.messages.push_back(std::move(message));
    }
    if (const auto tools = row.find("tools"); tools != row.end()) {
      LORRY_ASSIGN(example.tools, stored_json(*tools, "tools"));
      if (example.tools.is_array() && example.tools.empty()) example.tools = nullptr;
    }
    return example;
  }
  const auto text = row.find("text");
  if (text == row.end() || !text->is_string())
    return invalid_input("the row has neither `conversations` nor `text`");
  example.text = text->get<std::string>();
  example.is_text = true;
  if (const auto stored = row.find("segments"); stored != row.end() && stored->is_string()) {
    LORRY_ASSIGN(example.segments, segments_from(stored->get_ref<const std::string&>()));
  }
  return example;
}

Result<chat::EncodedExample> encode(const chat::Chat& chat, const Example& example,
                                    const chat::ExampleOptions& options) {
  if (!example.is_text)
    return chat.encode_example(example.messages, example.tools, options, example.context);
  if (!example.segments.empty()) return chat.encode_segments(example.segments, options);
  return chat.encode_text(example.text, options.with_offsets);
}

std::string why_no_target(const chat::EncodedExample& example) {
  switch (example.no_target) {
    case chat::NoTarget::kNone:
      break;  // until it was cut
    case chat::NoTarget::kNoAssistant:
      return "no message of the assistant";
    case chat::NoTarget::kEmpty:
      return "the assistant says nothing";
    case chat::NoTarget::kNotShown:
      return "the chat template does not show what the assistant says";
    case chat::NoTarget::kContext:
      return "every answer is marked as not to be learned";
    case chat::NoTarget::kNoText:
      return "no text";
  }
  return "every token to train on is beyond --max-length";
}

std::string describe(const chat::Loss& loss) {
  const bool is_tool = loss.part == chat::Part::kTools;
  return fmt::format("{} {}: {}", is_tool ? "tool" : "message", loss.message,
                     dump_json(loss.words));
}

Result<std::shared_ptr<const chat::Chat>> load_chat(const store::Bucket& bucket,
                                                    const std::string& model,
                                                    chat::TemplateSettings settings) {
  const std::string dir = store::model_dir(model);
  return chat::Chat::load(hub::text_files(bucket, dir), {}, std::move(settings)).with_context(dir);
}

}  // namespace lorry::stages

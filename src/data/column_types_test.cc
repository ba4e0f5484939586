#include "data/column_types.h"

#include <arrow/extension/json.h>
#include <arrow/type.h>
#include <gtest/gtest.h>

namespace lorry::data {
namespace {

using Type = std::shared_ptr<arrow::DataType>;

Result<Type> held_as(const Type& type) {
  LORRY_ASSIGN(const auto schema, shard_schema(arrow::Schema({arrow::field("c", type)})));
  return schema->field(0)->type();
}

/// The common type's name, or the error's message.
std::string merged(const Type& first, const Type& second) {
  const auto schema = merge_schemas(arrow::Schema({arrow::field("c", first)}),
                                    arrow::Schema({arrow::field("c", second)}));
  return schema.ok() ? (*schema)->field(0)->type()->ToString() : schema.error().message;
}

Type turn(const Type& content) {
  return arrow::list(arrow::struct_({arrow::field("content", content)}));
}

TEST(ColumnTypes, OfShardsAreThoseThatDatasetsHasFeaturesFor) {
  const auto codes = arrow::dictionary(arrow::int8(), arrow::utf8());
  const auto runs = arrow::run_end_encoded(arrow::int16(), arrow::utf8_view());
  EXPECT_TRUE((*held_as(codes))->Equals(arrow::utf8()));
  EXPECT_TRUE((*held_as(runs))->Equals(arrow::utf8()));
  EXPECT_TRUE((*held_as(arrow::list_view(codes)))->Equals(arrow::list(arrow::utf8())));
  EXPECT_TRUE((*held_as(arrow::fixed_size_list(runs, 2)))
                  ->Equals(arrow::fixed_size_list(arrow::utf8(), 2)));
  EXPECT_TRUE((*held_as(arrow::map(arrow::utf8(), runs)))->Equals(arrow::extension::json()));
  EXPECT_TRUE((*held_as(arrow::decimal32(4, 2)))->Equals(arrow::decimal128(4, 2)));
}

TEST(ColumnTypes, WithoutAFormInShardsAreRefusedByTheNameOfTheirField) {
  const auto refused = held_as(turn(arrow::month_interval()));
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("column c[].content"), std::string::npos);
}

TEST(ColumnTypes, NamedTwiceAreRefused) {
  const auto field = arrow::field("a", arrow::utf8());
  EXPECT_FALSE(shard_schema(arrow::Schema({field, field})).ok());
  EXPECT_FALSE(held_as(arrow::struct_({field, field})).ok());
}

TEST(ColumnTypes, OfTwoFilesAreTheSmallestThatHoldTheValuesOfBoth) {
  EXPECT_EQ(merged(arrow::int8(), arrow::uint8()), "int16");
  EXPECT_EQ(merged(arrow::uint32(), arrow::int16()), "int64");
  EXPECT_EQ(merged(arrow::uint8(), arrow::uint16()), "uint16");
  EXPECT_EQ(merged(arrow::uint64(), arrow::int8()), "int64");
  EXPECT_EQ(merged(arrow::float16(), arrow::float32()), "float");
  EXPECT_EQ(merged(arrow::float32(), arrow::int8()), "double");
  EXPECT_EQ(merged(arrow::null(), arrow::boolean()), "bool");
  EXPECT_EQ(merged(arrow::binary(), arrow::large_utf8()), "large_string");
  EXPECT_EQ(merged(arrow::decimal128(5, 1), arrow::decimal128(5, 4)), "decimal128(8, 4)");
  EXPECT_EQ(
      merged(arrow::timestamp(arrow::TimeUnit::SECOND), arrow::timestamp(arrow::TimeUnit::MICRO)),
      "timestamp[us]");
  EXPECT_EQ(
      merged(arrow::fixed_size_list(arrow::int8(), 2), arrow::fixed_size_list(arrow::int8(), 3)),
      "list<item: int8>");
}

TEST(ColumnTypes, OfStructsAreTheFieldsOfBothAtEveryLevel) {
  const auto first = arrow::list(arrow::struct_({arrow::field("a", arrow::null())}));
  const auto second = arrow::list(
      arrow::struct_({arrow::field("b", arrow::utf8()), arrow::field("a", arrow::boolean())}));
  EXPECT_EQ(merged(first, second), "list<item: struct<a: bool, b: string>>");
}

TEST(ColumnTypes, WithoutACommonOneNameTheFieldAndBoth) {
  EXPECT_EQ(merged(turn(arrow::utf8()), turn(arrow::int64())),
            "column c[].content is int64 here, but string in the files before it");
  EXPECT_NE(merged(arrow::utf8(), turn(arrow::utf8())).find("column c is list"), std::string::npos);
}

}  // namespace
}  // namespace lorry::data

#include "model/packed_weights.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>  // join

#include <array>
#include <vector>

namespace lorry::model {
namespace {

constexpr int64_t kGroup = ops::kInt4Group;
constexpr int64_t kNibbles = 8;  // of a 32-bit word
constexpr std::array<int64_t, kNibbles> kInOrder{0, 1, 2, 3, 4, 5, 6, 7};
/// The column that each nibble of AWQ's words belongs to.
constexpr std::array<int64_t, kNibbles> kAwqOrder{0, 2, 4, 6, 1, 3, 5, 7};

using Shape = std::vector<int64_t>;

/// The name of a tensor that stands beside or for "x.weight".
std::string beside(const std::string& name, const char* suffix) {
  constexpr std::string_view kWeight = "weight";
  return name.substr(0, name.size() - kWeight.size()) + suffix;
}

/// Nibbles of int32 words along `dim`, which becomes eight times as long, as bytes.
at::Tensor unpacked(const at::Tensor& words, int64_t dim,
                    const std::array<int64_t, kNibbles>& order) {
  Shape sizes = words.sizes().vec();
  sizes.insert(sizes.begin() + dim + 1, kNibbles);
  at::Tensor out = at::empty(sizes, at::kByte);
  for (int64_t i = 0; i < kNibbles; ++i) {
    const at::Tensor codes = words.bitwise_right_shift(4 * i).bitwise_and(15);
    out.select(dim + 1, order[static_cast<size_t>(i)]).copy_(codes);
  }
  return out.flatten(dim, dim + 1);
}

/// (out, in) codes of 0 to 15 as kInt4Groups holds them.
at::Tensor packed(const at::Tensor& codes) {
  const at::Tensor pairs = codes.unflatten(1, {-1, 2});
  return pairs.select(2, 0).bitwise_or(pairs.select(2, 1).bitwise_left_shift(4)).contiguous();
}

/// (out, groups of any length) -> (out, in / 128).
at::Tensor by_128(const at::Tensor& x, int64_t in) {
  return x.repeat_interleave(in / kGroup / x.size(1), 1).contiguous();
}

/// codes (out, in / 2); scales and zeros (out, groups): number = (code - zero) * scale.
ops::Weight int4(at::Tensor codes, const at::Tensor& scales, const at::Tensor& zeros, int64_t in) {
  const at::Tensor scale = scales.to(at::kFloat);
  const at::Tensor eight = (8 - zeros.to(at::kFloat)) * scale;  // the number of code 8
  const int64_t out = codes.size(0);
  return {ops::WeightFormat::kInt4Groups,
          out,
          in,
          std::move(codes),
          by_128(scale, in),
          by_128(eight, in)};
}

Result<ops::Weight> read_words(const SafetensorsReader& reader, PackedKind kind,
                               const std::string& name, int64_t in) {
  LORRY_ASSIGN(const at::Tensor words, reader.tensor(beside(name, "qweight")));
  LORRY_ASSIGN(const at::Tensor zero_words, reader.tensor(beside(name, "qzeros")));
  LORRY_ASSIGN(const at::Tensor scales, reader.tensor(beside(name, "scales")));
  const bool is_gptq = kind == PackedKind::kGptq;
  const auto& order = is_gptq ? kInOrder : kAwqOrder;
  const at::Tensor codes = unpacked(words, is_gptq ? 0 : 1, order);  // (in, out)
  at::Tensor zeros = unpacked(zero_words, 1, order);                 // (groups, out)
  if (is_gptq) zeros = zeros + 1;                                    // it stores them less 1
  const std::string index = beside(name, "g_idx");
  if (is_gptq && reader.contains(index)) {
    LORRY_ASSIGN(const at::Tensor groups, reader.tensor(index));
    const int64_t length = in / scales.size(0);
    if (!at::equal(groups.to(at::kLong), at::arange(in, at::kLong).floor_divide(length))) {
      return unsupported(fmt::format(
          "{}{} puts columns into groups by their activations (desc_act), which lorry does not "
          "read",
          reader.where(), index));
    }
  }
  return int4(packed(codes.t()), scales.t(), zeros.t(), in);
}

/// Zero points of compressed-tensors: (out, groups), in words along the rows or as they are.
Result<at::Tensor> zero_points(const SafetensorsReader& reader, const std::string& name,
                               int64_t out) {
  LORRY_ASSIGN(const at::Tensor stored, reader.tensor(name));
  if (stored.scalar_type() != at::kInt) return stored.to(at::kFloat) + 8;
  return unpacked(stored, 0, kInOrder).narrow(0, 0, out).to(at::kFloat);
}

Result<ops::Weight> read_ints(const SafetensorsReader& reader, const std::string& name, int64_t out,
                              int64_t in) {
  LORRY_ASSIGN(const at::Tensor words, reader.tensor(beside(name, "weight_packed")));
  LORRY_ASSIGN(const at::Tensor scales, reader.tensor(beside(name, "weight_scale")));
  const at::Tensor bytes = words.contiguous().view(at::kByte);  // the low nibble comes first
  if (bytes.size(1) == in) {                                    // codes of 8 bits, 128 for zero
    return ops::Weight{ops::WeightFormat::kInt8Rows, out, in,
                       bytes.bitwise_xor(0x80).view(at::kChar), scales.to(at::kFloat).contiguous()};
  }
  at::Tensor zeros = at::full({}, 8.0);
  const std::string points = beside(name, "weight_zero_point");
  if (reader.contains(points)) {
    LORRY_ASSIGN(zeros, zero_points(reader, points, out));
  }
  return int4(bytes, scales, zeros.expand_as(scales), in);
}

Result<ops::Weight> read_rows(const SafetensorsReader& reader, const std::string& name, int64_t out,
                              int64_t in) {
  LORRY_ASSIGN(const at::Tensor codes, reader.tensor(name));
  LORRY_ASSIGN(const at::Tensor scales, reader.tensor(beside(name, "weight_scale")));
  const bool is_int = codes.scalar_type() == at::kChar;
  return ops::Weight{is_int ? ops::WeightFormat::kInt8Rows : ops::WeightFormat::kFp8Rows, out, in,
                     codes.contiguous(),
                     scales.to(at::kFloat).reshape({-1, 1}).expand({out, 1}).contiguous()};
}

/// Groups of scales that a row of `in` numbers may have: of whole multiples of 128.
bool has_good_groups(int64_t groups, int64_t in) {
  return groups > 0 && in % groups == 0 && in / groups % kGroup == 0;
}

/// The check of one matrix: shapes and dtypes of its tensors.
class PackedCheck {
 public:
  PackedCheck(const SafetensorsReader& reader, PackedKind kind, const std::string& name,
              int64_t out, int64_t in)
      : reader_(reader), name_(name), codes_(codes_name(kind, name)), out_(out), in_(in) {}

  Result<> words(bool is_gptq) const {
    const Shape words = is_gptq ? Shape{in_ / kNibbles, out_} : Shape{in_, out_ / kNibbles};
    const Shape scales = shape_of("scales"), zeros = shape_of("qzeros");
    if (shape_of("qweight") != words || in_ % kNibbles != 0 || out_ % kNibbles != 0) {
      return wrong("does not hold the 4-bit numbers");
    }
    if (scales.size() != 2 || scales[1] != out_ || zeros != Shape{scales[0], out_ / kNibbles}) {
      return wrong("has scales or zeros that are not those");
    }
    return has_good_groups(scales[0], in_) ? Result<>() : wrong_groups(scales[0]);
  }

  Result<> ints() const {
    const Shape shape = reader_.shape(codes_), scales = shape_of("weight_scale");
    const bool is_int8 = shape == Shape{out_, in_ / 4};
    if (in_ % kNibbles != 0 || (!is_int8 && shape != Shape{out_, in_ / kNibbles})) {
      return wrong("does not hold the 4-bit or 8-bit numbers");
    }
    if (scales.size() != 2 || scales[0] != out_) return wrong("has scales that are not those");
    if (has("weight_g_idx") || (is_int8 && has("weight_zero_point"))) {
      return unsupported(
          fmt::format("{}{} has reordered groups or 8-bit zero points, which lorry does not read",
                      reader_.where(), codes_));
    }
    const bool fits = is_int8 ? scales[1] == 1 : has_good_groups(scales[1], in_);
    return fits ? Result<>() : wrong_groups(scales[1]);
  }

  Result<> rows() const {
    const Shape scales = shape_of("weight_scale");
    const std::string dtype = reader_.dtype(codes_);
    if (reader_.shape(codes_) != Shape{out_, in_}) return wrong("does not hold the numbers");
    if (dtype != "I8" && dtype != "F8_E4M3") {
      return unsupported(
          fmt::format("{}tensor {} is {} with a scale; lorry reads I8 and F8_E4M3 so",
                      reader_.where(), codes_, dtype));
    }
    const bool is_whole = scales.empty() || scales == Shape{1} || scales == Shape{1, 1};
    if (!is_whole && scales != Shape{out_} && scales != Shape{out_, 1}) {
      return wrong_groups(scales.size() < 2 ? 0 : scales[1]);
    }
    if (has("weight_zero_point")) {
      return unsupported(
          fmt::format("{}{} has zero points, which lorry does not read", reader_.where(), codes_));
    }
    return {};
  }

 private:
  bool has(const char* suffix) const { return reader_.contains(beside(name_, suffix)); }
  Shape shape_of(const char* suffix) const { return reader_.shape(beside(name_, suffix)); }

  Error wrong(std::string_view what) const {
    return corrupt_data(fmt::format("{}tensor {} ({}) {} of a {} x {} matrix", reader_.where(),
                                    codes_, fmt::join(reader_.shape(codes_), " x "), what, out_,
                                    in_));
  }
  Error wrong_groups(int64_t groups) const {
    return unsupported(fmt::format(
        "{}the scales of {} are {} a row of {} numbers; lorry reads 4-bit weights in groups of a "
        "multiple of 128, and 8-bit weights with a scale a row",
        reader_.where(), codes_, groups, in_));
  }

  const SafetensorsReader& reader_;
  const std::string& name_;
  const std::string codes_;
  const int64_t out_, in_;
};

}  // namespace

std::optional<PackedKind> packed_kind(const SafetensorsReader& reader, const std::string& name) {
  if (!name.ends_with(".weight")) return std::nullopt;
  if (reader.contains(beside(name, "weight_packed"))) return PackedKind::kPackedInts;
  if (reader.contains(beside(name, "weight_scale"))) return PackedKind::kScaledRows;
  if (!reader.contains(beside(name, "qweight"))) return std::nullopt;
  return reader.contains(beside(name, "g_idx")) ? PackedKind::kGptq : PackedKind::kAwq;
}

std::string codes_name(PackedKind kind, const std::string& name) {
  if (kind == PackedKind::kScaledRows) return name;
  return beside(name, kind == PackedKind::kPackedInts ? "weight_packed" : "qweight");
}

Result<> check_packed(const SafetensorsReader& reader, PackedKind kind, const std::string& name,
                      int64_t out, int64_t in) {
  const PackedCheck check(reader, kind, name, out, in);
  if (kind == PackedKind::kPackedInts) return check.ints();
  if (kind == PackedKind::kScaledRows) return check.rows();
  return check.words(kind == PackedKind::kGptq);
}

Result<ops::Weight> read_packed(const SafetensorsReader& reader, PackedKind kind,
                                const std::string& name, int64_t out, int64_t in) {
  if (kind == PackedKind::kPackedInts) return read_ints(reader, name, out, in);
  if (kind == PackedKind::kScaledRows) return read_rows(reader, name, out, in);
  return read_words(reader, kind, name, in);
}

}  // namespace lorry::model

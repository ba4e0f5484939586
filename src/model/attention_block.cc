// The two kinds of attention that a block may have.
#include <ATen/ATen.h>

#include "model/transformer.h"
#include "ops/norm_rope.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"

namespace lorry::model {
namespace {

/// Norms and rotation of a joined product in one pass; null where there is none for it.
at::Tensor normed_and_turned(const AttentionSpec& spec, const at::Tensor& joined,
                             const std::vector<at::Tensor>& tensors, const RopeAngles* angles) {
  const NormSpec &q = spec.q_norm, &k = spec.k_norm;
  const bool fits = joined.defined() && q.tensor >= 0 && k.tensor >= 0 && !spec.norm_over_heads &&
                    q.eps == k.eps && q.kind == k.kind && angles != nullptr &&
                    !angles->query_scale.defined();
  if (!fits) return {};
  const ops::HeadNorms norms{spec.heads,        spec.kv_heads, spec.head_dim, tensors[q.tensor],
                             tensors[k.tensor], q.eps,         q.kind};
  return ops::norm_rope(joined, norms, angles->cos, angles->sin);
}

/// Pairs (2i, 2i + 1) of the last dimension moved to (i, i + R/2), the order that ops::rotate
/// turns. Queries and keys are moved alike, so that their products stay.
at::Tensor halves_from_pairs(const at::Tensor& x) {
  return x.unflatten(-1, {x.size(-1) / 2, 2}).transpose(-1, -2).flatten(-2);
}

}  // namespace

// T tokens, H query heads, K key/value heads, D head size.

at::Tensor Transformer::attend(int64_t layer, const AttentionSpec& spec, const MapInput& input,
                               const StepContext& context) const {
  const int64_t d = spec.head_dim, q_rows = spec.heads * d, kv_rows = spec.kv_heads * d;
  const ops::AttentionParams params{spec.scale, spec.softcap, spec.window,
                                    spec.sinks >= 0 ? tensors_[spec.sinks] : at::Tensor()};
  const RopeAngles* angles = spec.rope < 0 ? nullptr : &context.angles[spec.rope];
  const auto finish = [&](const at::Tensor& out) {
    return project_one(spec.out, {out.reshape({-1, q_rows}), {}}, context.adapters);
  };
  const bool is_plain = spec.q_norm.tensor < 0 && spec.k_norm.tensor < 0 &&
                        (angles == nullptr || !angles->query_scale.defined());
  at::Tensor joined = project_joined(spec.qkv, input, context.adapters);
  if (is_plain && joined.defined()) {
    const int64_t turning = spec.heads + spec.kv_heads;
    if (angles) {
      joined = ops::rotate_in_place(std::move(joined), turning, d, angles->cos, angles->sin);
    }
    return finish(
        context.attention.attend_joined(layer, params, joined, spec.heads, spec.kv_heads));
  }
  if (const at::Tensor turned = normed_and_turned(spec, joined, tensors_, angles);
      turned.defined()) {
    return finish(
        context.attention.attend_joined(layer, params, turned, spec.heads, spec.kv_heads));
  }
  const auto parts =
      project_split(spec.qkv, input.x, context.adapters, {q_rows, kv_rows, kv_rows}, joined);
  const auto in_heads = [&](const at::Tensor& part, const NormSpec& head_norm) {
    const at::Tensor flat = part.contiguous();
    if (spec.norm_over_heads) return norm(flat, head_norm).reshape({-1, flat.size(1) / d, d});
    return norm(flat.reshape({-1, flat.size(1) / d, d}), head_norm);
  };
  at::Tensor q = in_heads(parts[0], spec.q_norm);  // (T, H, D)
  at::Tensor k = in_heads(parts[1], spec.k_norm);  // (T, K, D)
  const at::Tensor v = parts[2].contiguous().reshape({-1, spec.kv_heads, d});
  if (angles) {
    q = ops::rotate(q, angles->cos, angles->sin);
    k = ops::rotate(k, angles->cos, angles->sin);
    if (angles->query_scale.defined()) q = q * angles->query_scale;
  }
  return finish(context.attention.attend(layer, params, q, k, v));
}

// H heads, C kv_rank, N nope_dim, R rope_dim, E value_dim. Keys and values are widened before they
// are cached, so that any cache holds them.

at::Tensor Transformer::attend(int64_t layer, const MlaSpec& spec, const MapInput& input,
                               const StepContext& context) const {
  const AdapterView& adapters = context.adapters;
  const int64_t h = spec.heads, n = spec.nope_dim, r = spec.rope_dim, e = spec.value_dim;
  const RopeAngles& angles = context.angles[spec.rope];
  const auto turn = [&](const at::Tensor& part) {
    return ops::rotate(spec.interleaved ? halves_from_pairs(part) : part, angles.cos, angles.sin);
  };
  MapInput latent_q = input;
  if (spec.q_down >= 0) {
    const at::Tensor narrow_q = project_one(spec.q_down, input, adapters);
    latent_q = after_norm(norm(narrow_q, spec.q_norm), narrow_q, spec.q_norm, context);
  }
  const at::Tensor q = project_one(spec.q, latent_q, adapters).view({-1, h, n + r});
  const at::Tensor queries = at::cat({q.narrow(2, 0, n), turn(q.narrow(2, n, r))}, -1);

  const at::Tensor down = project_one(spec.kv_down, input, adapters);  // (T, C + R)
  const at::Tensor narrow_kv = down.narrow(1, 0, spec.kv_rank).contiguous();
  const MapInput latent =
      after_norm(norm(narrow_kv, spec.kv_norm), narrow_kv, spec.kv_norm, context);
  const at::Tensor shared_key = turn(down.narrow(1, spec.kv_rank, r).unsqueeze(1));  // (T, 1, R)
  const at::Tensor up = project_one(spec.kv_up, latent, adapters).view({-1, h, n + e});
  const at::Tensor keys = at::cat({up.narrow(2, 0, n), shared_key.expand({-1, h, r})}, -1);
  const at::Tensor values = up.narrow(2, n, e);

  const at::Tensor out =
      context.attention.attend(layer, {spec.scale}, queries, keys, values);  // (T, H, E)
  return project_one(spec.out, {out.reshape({-1, h * e}), {}}, adapters);
}

}  // namespace lorry::model

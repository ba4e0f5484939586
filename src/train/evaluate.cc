#include "train/evaluate.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <latch>
#include <memory>

#include "base/cancel.h"
#include "base/progress.h"
#include "chat/chat.h"
#include "generate/answer_text.h"
#include "generate/scheduler.h"
#include "generate/stop_ids.h"
#include "hub/model_dir.h"
#include "model/transformer.h"
#include "store/layout.h"
#include "train/batch.h"
#include "train/inputs.h"
#include "train/micro_batch_size.h"

namespace lorry::train {
namespace {

/// One of the models that are compared.
struct Candidate {
  std::string name;
  std::shared_ptr<model::Transformer> transformer;
  std::shared_ptr<const model::LoraAdapter> adapter;  ///< null: the weights alone
  double loss_sum = 0;
};

TrainOptions input_options(const EvalOptions& options) {
  TrainOptions out;
  out.bucket = options.bucket;
  out.model = options.model;
  out.dataset = options.dataset;
  out.max_length = options.max_length;
  out.adapter = options.adapter;
  return out;
}

/// Sum of the losses of all targets, in nats.
double loss_of(const Candidate& candidate, const MicroBatch& batch) {
  const model::Transformer& transformer = *candidate.transformer;
  model::PackedAttention attention(batch.cu_seqlens);
  const auto adapters = model::AdapterView::one(candidate.adapter);
  const at::Tensor hidden =
      transformer.forward(batch.input_ids, batch.positions, attention, adapters);
  const at::Tensor rows = hidden.index_select(0, batch.target_rows);
  const int64_t chunk = 128;  // logits of 150 k tokens: 78 MB in float32
  double sum = 0;
  for (int64_t begin = 0; begin < rows.size(0); begin += chunk) {
    const int64_t n = std::min(chunk, rows.size(0) - begin);
    const at::Tensor logits = transformer.logits(rows.narrow(0, begin, n), adapters).to(at::kFloat);
    const at::Tensor targets = batch.targets.narrow(0, begin, n).unsqueeze(1);
    const at::Tensor losses = at::logsumexp(logits, {1}, true) - logits.gather(1, targets);
    sum += losses.sum(at::kDouble).item<double>();
  }
  return sum;
}

/// The steps of `evaluate`.
class Evaluation {
 public:
  explicit Evaluation(const EvalOptions& options) : options_(options) {}

  Result<EvalReport> run() {
    const auto begin = std::chrono::steady_clock::now();
    const TrainOptions inputs = input_options(options_);
    LORRY_ASSIGN(inputs_, open_inputs(inputs));
    LORRY_TRY(open_rows(inputs_, inputs));
    LORRY_TRY(choose_rows());
    LORRY_TRY(load_candidates());
    const at::NoGradGuard no_grad;
    LORRY_TRY(score());
    for (Candidate& candidate : candidates_) {
      EvalScore score{
          candidate.name, candidate.loss_sum / static_cast<double>(report_.target_tokens), {}};
      if (!options_.prompts.empty()) {
        LORRY_ASSIGN(score.answers, answers_of(candidate));
      }
      report_.models.push_back(std::move(score));
    }
    report_.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return std::move(report_);
  }

 private:
  /// The examples that have a target, in the data's order.
  Result<> choose_rows() {
    int64_t seen = 0;
    for (size_t shard = 0; shard < inputs_.shards.size(); ++shard) {
      for (int64_t row = 0; row < inputs_.shards[shard]->rows(); ++row, ++seen) {
        if (options_.max_rows > 0 && seen >= options_.max_rows) break;
        const Place place{static_cast<int64_t>(shard), row};
        const data::TokenRow tokens = inputs_.row(place);
        report_.cut_examples += static_cast<int64_t>(tokens.input_ids.size()) > options_.max_length;
        if (useful_length(tokens, options_.max_length) == 0) {
          ++report_.empty_examples;
        } else {
          rows_.push_back({place});
        }
      }
    }
    report_.examples = static_cast<int64_t>(rows_.size());
    if (!rows_.empty()) return {};
    if (seen == 0) return invalid_input(fmt::format("{} has no examples", options_.dataset));
    return invalid_input(fmt::format(
        "none of the first {} examples of {} has a target within --max-length {}: every assistant "
        "mask is 0 there; look at one with `lorry render`, or raise --max-length",
        seen, options_.dataset, options_.max_length));
  }

  Result<std::shared_ptr<model::Transformer>> load_weights(const std::string& dir) {
    LORRY_ASSIGN(const model::ModelSpec spec, model::load_model_spec(*inputs_.bucket, dir));
    LORRY_ASSIGN(device_, ops::resolve_device(options_.device));
    LORRY_ASSIGN(const at::ScalarType dtype,
                 ops::resolve_dtype(options_.dtype, spec.dtype, device_));
    return model::Transformer::load(*inputs_.bucket, dir, {dtype, device_});
  }

  Result<> load_candidates() {
    std::string adapter_dir;
    const std::string fused = store::fused_dir(options_.model, options_.run);
    std::shared_ptr<store::Bucket> adapter_bucket = inputs_.adapter.bucket;
    if (adapter_bucket) {
      adapter_dir = inputs_.adapter.dir;
    } else if (!options_.run.empty()) {
      LORRY_TRY(require_run());
      const std::string dir = store::adapter_dir(options_.model, options_.run);
      LORRY_ASSIGN(const bool has_adapter, inputs_.bucket->exists(dir + "/adapter_config.json"));
      if (has_adapter) {
        adapter_bucket = inputs_.bucket;
        adapter_dir = dir;
      }
    }
    std::shared_ptr<model::Transformer> base;
    if (options_.base || adapter_bucket) {
      LORRY_ASSIGN(base, load_weights(store::model_dir(options_.model)));
    }
    if (options_.base) candidates_.push_back({options_.model, base, nullptr});
    if (adapter_bucket) {
      LORRY_ASSIGN(const auto adapter,
                   model::LoraAdapter::load(*adapter_bucket, adapter_dir, base->spec(), device_));
      const std::string name =
          options_.run.empty() ? options_.adapter : options_.model + "/" + options_.run;
      candidates_.push_back({name, base, adapter});
    } else if (!options_.run.empty()) {
      LORRY_ASSIGN(const auto weights, load_weights(fused));
      candidates_.push_back({options_.model + "/" + options_.run, weights, nullptr});
    }
    return {};
  }

  Result<> require_run() {
    const std::string done = store::done_dir(options_.model, options_.run);
    LORRY_ASSIGN(const auto info, inputs_.bucket->read_info(done));
    if (info) return {};
    return not_found(fmt::format("{} is not complete in {}; run `lorry train` first", done,
                                 inputs_.bucket->uri()));
  }

  Result<> score() {
    const int64_t tokens = micro_batch_tokens(candidates_[0].transformer->spec(), device_);
    constexpr size_t kRows = 64;  // laid into forward passes at a time
    Progress progress("evaluating", "examples", report_.examples);
    for (size_t begin = 0; begin < rows_.size(); begin += kRows) {
      const auto rows = std::span(rows_).subspan(begin, std::min(kRows, rows_.size() - begin));
      const StepBatch batch = make_step_batch(
          rows, [this](Place place) { return inputs_.row(place); },
          {.max_length = options_.max_length, .micro_batch_tokens = tokens, .device = device_});
      LORRY_TRY(check_ids(batch));
      report_.target_tokens += batch.targets;
      for (const MicroBatch& on_host : batch.micro_batches) {
        const MicroBatch micro = on_host.to(device_);
        for (Candidate& candidate : candidates_) candidate.loss_sum += loss_of(candidate, micro);
        LORRY_TRY(check_cancelled());
      }
      progress.set(static_cast<int64_t>(begin + rows.size()));
    }
    progress.finish();
    return {};
  }

  Result<> check_ids(const StepBatch& batch) const {
    const int64_t vocab = candidates_[0].transformer->spec().vocab_size;
    if (batch.max_id < vocab) return {};
    return invalid_input(
        fmt::format("{} holds token id {}, but the model has {}; run `lorry pretokenize` again",
                    store::model_ready_dir(options_.model, options_.dataset), batch.max_id, vocab));
  }

  Result<std::vector<generate::SequenceRequest>> requests_for(const Candidate& candidate,
                                                              const chat::Chat& chat) const {
    const auto& spec = candidate.transformer->spec();
    const auto stop_ids = generate::chat_stop_ids(spec.eos_token_ids, chat);
    std::vector<generate::SequenceRequest> requests;
    for (const EvalPrompt& prompt : options_.prompts) {
      generate::SequenceRequest request;
      LORRY_ASSIGN(request.prompt, chat.encode_prompt(prompt.messages, prompt.tools, Json()));
      const auto length = static_cast<int64_t>(request.prompt.size());
      const int64_t room = spec.max_position_embeddings - length;
      if (length == 0 || room <= 0)
        return invalid_input(
            fmt::format("conversation {} of --generate has a prompt of {} tokens; the model takes "
                        "1 to {}",
                        requests.size() + 1, length, spec.max_position_embeddings - 1));
      request.sampling.temperature = 0;
      request.max_tokens = std::min(options_.max_new_tokens, room);
      request.stop_ids = stop_ids;
      request.adapter = candidate.adapter;
      requests.push_back(std::move(request));
    }
    return requests;
  }

  /// All prompts at once through the scheduler that the server uses.
  Result<std::vector<std::string>> answers_of(const Candidate& candidate) {
    const auto settings =
        chat::TemplateSettings::from_json(inputs_.data_info.value("template_settings", Json()));
    LORRY_ASSIGN(
        const auto chat,
        chat::Chat::load(hub::text_files(*inputs_.bucket, store::model_dir(options_.model)), {},
                         settings));
    LORRY_ASSIGN(auto requests, requests_for(candidate, *chat));
    int64_t tokens = 0;
    for (const auto& request : requests) {
      const auto length = static_cast<int64_t>(request.prompt.size()) + request.max_tokens;
      tokens += generate::KvCache::blocks_for(length) * generate::KvCache::kBlockTokens;
    }
    struct Answer {
      std::string text, error;
    };
    std::vector<Answer> answers(requests.size());
    std::latch finished(static_cast<ptrdiff_t>(requests.size()));
    generate::Scheduler scheduler({});
    scheduler.add_model(generate::make_step_model(
        {candidate.transformer},
        generate::choose_kv_cache_tokens(*candidate.transformer, 0, tokens, 1)));
    for (size_t i = 0; i < requests.size(); ++i) {
      const auto text = std::make_shared<generate::AnswerText>(chat->tokenizer(), true,
                                                               std::vector<std::string>());
      LORRY_TRY(scheduler.submit(0, std::move(requests[i]),
                                 [&, i, text](const generate::TokenEvent& event) {
                                   answers[i].text += text->push(event);
                                   answers[i].error += event.error;
                                   if (text->finish() != generate::FinishReason::kNone)
                                     finished.count_down();
                                 }));
    }
    scheduler.start();
    finished.wait();
    scheduler.stop();
    std::vector<std::string> texts;
    for (Answer& answer : answers) {
      if (!answer.error.empty()) return unavailable(answer.error);
      texts.push_back(std::move(answer.text));
    }
    return texts;
  }

  const EvalOptions& options_;
  Inputs inputs_;
  at::Device device_{at::kCPU};
  std::vector<PackedRow> rows_;
  std::vector<Candidate> candidates_;
  EvalReport report_;
};

Result<> check(const EvalOptions& options) {
  if (options.model.empty()) return usage_error("no model named; give --model or set MODEL_NAME");
  if (options.dataset.empty())
    return usage_error("no data set named; give --dataset or set DATASET_NAME");
  if (options.max_length < 2) return usage_error("--max-length must be 2 or more");
  if (!options.run.empty() && !options.adapter.empty())
    return usage_error("--adapter is a fine-tuned model of its own; give it without --trained-on");
  if (!options.base && options.run.empty() && options.adapter.empty())
    return usage_error("there is no model to evaluate");
  return {};
}

}  // namespace

Result<EvalReport> evaluate(const EvalOptions& options) {
  LORRY_TRY(check(options));
  return Evaluation(options).run();
}

}  // namespace lorry::train

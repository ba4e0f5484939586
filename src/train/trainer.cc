// The loop: steps, checkpoints between them, and the export after the last.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cmath>
#include <cstdlib>  // getenv
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/cancel.h"
#include "base/digest.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mix.h"
#include "base/progress.h"
#include "model/transformer.h"
#include "store/claim.h"
#include "store/layout.h"
#include "train/batch.h"
#include "train/batch_loader.h"
#include "train/block_runner.h"
#include "train/checkpoint.h"
#include "train/inputs.h"
#include "train/kept_heap.h"
#include "train/memory.h"
#include "train/micro_batch_size.h"
#include "train/optimizer.h"
#include "train/options.h"
#include "train/profile.h"
#include "train/publish.h"
#include "train/schedule.h"
#include "train/step.h"
#include "train/train.h"
#include "train/trainable.h"

namespace lorry::train {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kDropoutSalt = 0x64726f70;  // "drop"

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string checkpoints_dir(const TrainOptions& options) {
  return store::checkpoints_dir(options.model, store::run_of(options.dataset, options.run_name));
}

/// Where a trace of one step goes; empty: none is wanted. For measurements (bench/gpu).
std::string profile_path() {
  const char* const path = std::getenv("LORRY_PROFILE_STEP");
  return path == nullptr ? "" : path;
}

/// What this run must have for itself: its checkpoints and results. Its tokens and its base model
/// stay as they are until it is done.
store::Work work_of(const TrainOptions& options, const std::string& key) {
  return {store::done_dir(options.model, store::run_of(options.dataset, options.run_name)),
          {store::model_ready_dir(options.model, options.dataset), store::model_dir(options.model)},
          "train",
          key,
          0,
          1};
}

/// One run, from opened inputs to published results.
class Trainer {
 public:
  Trainer(const TrainOptions& options, Inputs inputs, store::Claim& claim)
      : options_(options),
        inputs_(std::move(inputs)),
        claim_(claim),
        rows_(make_rows(options, inputs_)),
        checkpoints_(claim, checkpoints_dir(options), inputs_.identity) {}

  Result<TrainReport> run() {
    LORRY_TRY(check_targets(inputs_, options_.max_length));
    warn_of_long_rows(inputs_, options_.max_length);
    LORRY_TRY(find_checkpoint());
    LORRY_TRY(load_model());
    LORRY_TRY(resume());
    LORRY_TRY(train_steps());
    LORRY_TRY(publish_results());
    TrainReport report;
    report.steps = state_.step;
    report.tokens = state_.tokens;
    if (state_.last) report.last_loss = state_.last->loss;
    report.seconds = seconds_since(start_);
    report.recompute = recompute_name(recompute_);
    return report;
  }

 private:
  int64_t rows_per_step() const {
    return options_.batch_size * options_.gradient_accumulation_steps;
  }

  Result<> load_model() {
    LORRY_ASSIGN(const at::Device device, ops::resolve_device(options_.device));
    LORRY_ASSIGN(const at::ScalarType dtype,
                 ops::resolve_dtype(options_.dtype, inputs_.spec.dtype, device));
    if (const auto slow = ops::slow_dtype_warning(dtype, device); !slow.empty()) {
      log::warn("{}", slow);
    }
    const ops::WeightFormat format = base_format(options_);
    LORRY_TRY(check_format_on_device(format, ops::compute_capability(device)));
    LORRY_TRY(decide_recompute(device, dtype));
    LORRY_ASSIGN(model_, model::Transformer::load(
                             *inputs_.bucket, store::model_dir(options_.model),
                             {.dtype = dtype, .device = device, .base_format = format}));
    scaler_ = GradScaler(dtype == at::kHalf);
    micro_batch_tokens_ = micro_batch_tokens(inputs_.spec, device);
    if (options_.full) {
      trainable_ = Trainable::of_model(*model_);
    } else {
      LORRY_TRY(make_adapter(device));
      if (options_.lora_dropout > 0) adapter_->set_dropout(options_.lora_dropout);
      dropout_ = adapter_->config().dropout;
      trainable_ = Trainable::of_adapter(adapter_, dtype);
    }
    optimizer_ = std::make_unique<AdamW>(
        trainable_, AdamWOptions{options_.adam_beta1, options_.adam_beta2, options_.adam_epsilon,
                                 options_.weight_decay});
    runner_ =
        std::make_unique<StepRunner>(*model_, adapter_, trainable_, *optimizer_,
                                     StepOptions{recompute_, dropout_, options_.max_grad_norm});
    total_steps_ = options_.max_steps > 0 ? options_.max_steps
                                          : count_steps(rows_, options_.epochs, rows_per_step());
    LORRY_ASSIGN(schedule_, Schedule::create(options_.lr_scheduler_type, options_.learning_rate,
                                             options_.warmup_steps, total_steps_));
    if (const auto text = warm_up_warning(options_, total_steps_); !text.empty()) {
      log::warn("{}", text);
    }
    const bool is_dense = format == ops::WeightFormat::kDense;
    log::info("training {} parameters of {} in {}{} on {}: {} examples, {} steps of {} rows",
              trainable_.size(), options_.model, ops::dtype_name(dtype),
              is_dense ? "" : " over a base in " + options_.base_format, device.str(),
              rows_.examples(), total_steps_, rows_per_step());
    return {};
  }

  /// Before anything is loaded.
  Result<> decide_recompute(at::Device device, at::ScalarType dtype) {
    LORRY_ASSIGN(const int64_t parameters,
                 count_parameters(*inputs_.bucket, store::model_dir(options_.model)));
    const TrainShape shape{inputs_.spec, device, parameters,
                           static_cast<int64_t>(at::elementSize(dtype)),
                           largest_pass(options_, inputs_, device)};
    const int64_t free = ops::free_memory(device);
    recompute_ = choose_recompute(options_, shape, free);
    const int64_t needed = training_memory(options_, shape, recompute_).total_bytes;
    log::info("recompute {}: takes about {} of the {} that are free", recompute_name(recompute_),
              format_bytes(double(needed)), format_bytes(double(free)));
    return {};
  }

  Result<> make_adapter(at::Device device) {
    if (inputs_.adapter.bucket) {
      LORRY_ASSIGN(adapter_, model::LoraAdapter::load(*inputs_.adapter.bucket, inputs_.adapter.dir,
                                                      inputs_.spec, device));
      return {};
    }
    const model::TransformerBase base(*model_);
    LORRY_ASSIGN(adapter_, model::LoraAdapter::create(inputs_.spec, lora_config(options_),
                                                      options_.seed, device, &base));
    return {};
  }

  /// Before the model is loaded: a run that must not go on ends at once.
  Result<> find_checkpoint() {
    if (options_.fresh) return checkpoints_.clear();
    std::string other;
    LORRY_ASSIGN(found_, checkpoints_.find(other));
    if (found_) return {};
    if (other.empty()) return checkpoints_.clear();  // of what was never committed
    const std::string holds = fmt::format("{} holds {}", checkpoints_dir(options_), other);
    if (options_.replace) {
      log::warn("{}, which stays until the first checkpoint of this one", holds);
      return {};
    }
    return invalid_input(
        fmt::format("{}; what it was made with goes on from there, --run-name NAME trains beside "
                    "it, and --replace (or --fresh) in its place",
                    holds));
  }

  Result<> resume() {
    state_.loss_scale = scaler_.scale();
    if (!found_) return {};
    LORRY_TRY(checkpoints_.load(*found_, trainable_, *optimizer_));
    state_ = std::move(found_->state);
    // An older format is written again, so that the parts of metrics.jsonl are whole.
    saved_step_ = found_->is_old_format ? -1 : state_.step;
    scaler_.restore(state_.loss_scale, state_.loss_scale_good_steps);
    log::info("going on from step {} of {}", state_.step, total_steps_);
    return {};
  }

  Result<> train_steps() {
    std::optional<KeptHeap> heap;
    if (model_->device().is_cpu()) heap.emplace();
    last_save_ = Clock::now();
    start_loading();
    first_step_ = state_.step;
    begin_ = step_begin_ = Clock::now();
    while (state_.step < total_steps_) {
      if (cancel_requested()) return stop();
      LORRY_TRY(step());
      LORRY_TRY(checkpoints_.check());
      if (save_is_due()) LORRY_TRY(save());
    }
    LORRY_TRY(save());
    return checkpoints_.wait();
  }

  bool save_is_due() const {
    if (state_.step == total_steps_) return false;
    if (options_.save_steps > 0 && state_.step % options_.save_steps == 0) return true;
    return seconds_since(last_save_) >= options_.save_seconds;
  }

  Result<> save() {
    LORRY_TRY(finish_launched());
    if (saved_step_ == state_.step) return {};
    LORRY_TRY(checkpoints_.save(state_, trainable_, *optimizer_));
    saved_step_ = state_.step;
    last_save_ = step_begin_ = Clock::now();
    return {};
  }

  Result<> stop() {
    LORRY_TRY(save());
    LORRY_TRY(checkpoints_.wait());
    return cancelled(fmt::format("stopped after step {} of {}; the same command goes on from there",
                                 state_.step, total_steps_));
  }

  /// Of the steps of this process the fifth, or the last: by then memory and kernels are there.
  bool is_profiled() const {
    constexpr int64_t kWarm = 4;
    return !profile_path_.empty() && state_.step == std::min(first_step_ + kWarm, total_steps_ - 1);
  }

  /// A step that the device works on, and what is known of it.
  struct Launched {
    StepMetrics metrics;
    PendingNumbers numbers;
    std::vector<PackedRow> rows;
    bool is_first = false;  ///< no weight was changed before
  };

  /// Launches a step. On a GPU the one before is read only then, so that the device never waits;
  /// float16 needs to know at once whether the step counts, and a CPU has nothing to wait for.
  Result<> step() {
    const PreparedStep prepared = loader_->next();
    const StepBatch& batch = prepared.batch;
    if (batch.max_id >= inputs_.spec.vocab_size) {
      return corrupt_data(
          fmt::format("token {} in the data has no row in the model's embedding ({} rows); run "
                      "`lorry pretokenize` again, which names the row of data",
                      batch.max_id, inputs_.spec.vocab_size));
    }
    StepMetrics metrics;
    metrics.step = state_.step + 1;
    metrics.shard = prepared.rows.back().back().shard;
    metrics.tokens = batch.tokens;
    metrics.epoch = prepared.epoch;
    metrics.learning_rate = schedule_->learning_rate(state_.schedule_step);
    const bool is_first = state_.schedule_step == 0;
    std::optional<StepProfile> profile;
    if (is_profiled()) profile.emplace(model_->device());
    Launched launched{metrics, runner_->run(batch, metrics.learning_rate, scaler_.scale()),
                      prepared.rows, is_first};
    if (profile) {
      LORRY_ASSIGN(const std::string table, profile->finish(profile_path_));
      log::info("{}", table);
    }
    LORRY_TRY(finish_launched());
    launched_ = std::move(launched);

    ++state_.step;
    ++state_.schedule_step;
    state_.tokens += batch.tokens;
    state_.targets += batch.targets;
    state_.cut_examples += batch.cut_examples;
    state_.empty_examples += batch.empty_examples;
    state_.cursor = prepared.cursor;
    if (model_->device().is_cpu() || scaler_.enabled()) return finish_launched();
    return {};
  }

  /// Waits for the step that was launched last, if it was not yet, and records it.
  Result<> finish_launched() {
    if (!launched_) return {};
    const Launched done = *std::exchange(launched_, std::nullopt);
    StepMetrics metrics = done.metrics;
    const StepNumbers numbers = done.numbers.read();
    metrics.loss = numbers.loss;
    metrics.grad_norm = numbers.grad_norm;
    LORRY_TRY(check_finite(metrics, done));
    const double seconds = seconds_since(std::exchange(step_begin_, Clock::now()));
    metrics.tokens_per_second = static_cast<double>(metrics.tokens) / seconds;
    state_.last = metrics;
    state_.pending.push_back(metrics);
    const double per_step = seconds_since(begin_) / static_cast<double>(metrics.step - first_step_);
    const auto left = static_cast<double>(total_steps_ - metrics.step);
    log::info("{}", progress_line(metrics, total_steps_, left * per_step));
    return {};
  }

  /// A step whose numbers are not finite changed no weight. For float16 that is a loss scale that
  /// was too large, for others the end.
  Result<> check_finite(const StepMetrics& metrics, const Launched& done) {
    const bool overflowed = !std::isfinite(metrics.grad_norm);
    if (!std::isfinite(metrics.loss) || (overflowed && !scaler_.enabled())) {
      return not_finite(metrics, done);
    }
    if (overflowed) --state_.schedule_step;
    scaler_.update(overflowed);
    state_.loss_scale = scaler_.scale();
    state_.loss_scale_good_steps = scaler_.good_steps();
    if (scaler_.enabled() && scaler_.scale() < 1e-3) return not_finite(metrics, done);
    return {};
  }

  /// Why a loss is not finite though no weight was changed yet.
  Error not_finite_from_the_start(const StepMetrics& metrics) const {
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : model_->named_weights()) {
      // Quantised weights were checked when they were made.
      if (!tensor.is_floating_point() || tensor.scalar_type() == at::kFloat8_e4m3fn) continue;
      if (at::isfinite(tensor).all().item<bool>()) continue;
      return invalid_input(
          fmt::format("step {}: the loss is {} because {} of {} holds NaN or infinity; import a "
                      "sound copy of the model",
                      metrics.step, metrics.loss, name, store::model_dir(options_.model)));
    }
    return invalid_input(
        fmt::format("step {}: the loss is {} before any weight was changed: {} overflows with this "
                    "model; try --dtype float32",
                    metrics.step, metrics.loss, ops::dtype_name(model_->dtype())));
  }

  Error not_finite(const StepMetrics& metrics, const Launched& done) const {
    if (done.is_first && !std::isfinite(metrics.loss)) return not_finite_from_the_start(metrics);
    const std::vector<PackedRow>& rows = done.rows;
    std::vector<std::string> places;
    for (const PackedRow& row : rows) {
      for (const Place& place : row) {
        if (places.size() < 8) places.push_back(fmt::format("{}/{}", place.shard, place.row));
      }
    }
    return invalid_input(fmt::format(
        "step {}: the loss is {} and the gradient norm {}, on shard/row {}{}; try a lower "
        "--learning-rate, more --warmup-steps or --dtype float32",
        metrics.step, metrics.loss, metrics.grad_norm, fmt::join(places, " "),
        rows.size() > places.size() ? " ..." : ""));
  }

  /// From here on the rows belong to the loader.
  void start_loading() {
    const auto make = [this](const std::vector<PackedRow>& rows, int64_t epoch) {
      BatchOptions batch{options_.max_length, micro_batch_tokens_, model_->device(), {}};
      if (dropout_ > 0) batch.dropout_seed = mix(options_.seed ^ kDropoutSalt, epoch);
      return make_step_batch(
          rows, [this](Place place) { return inputs_.row(place); }, batch);
    };
    loader_ = std::make_unique<BatchLoader>(
        BatchLoader::Source{rows_, rows_per_step(), options_.batch_size, make}, state_.cursor,
        total_steps_ - state_.step);
  }

  Result<> publish_results() {
    loader_.reset();
    runner_.reset();
    optimizer_.reset();
    LORRY_TRY(publish(
        {options_, inputs_, std::move(model_), std::move(adapter_), std::move(trainable_), state_,
         checkpoints_.metrics(), checkpoints_dir(options_) + "/result", recompute_name(recompute_)},
        claim_));
    return checkpoints_.clear();
  }

  const TrainOptions& options_;
  Inputs inputs_;
  store::Claim& claim_;
  RowSource rows_;
  CheckpointStore checkpoints_;
  Recompute recompute_ = Recompute::kNone;
  const std::string profile_path_ = profile_path();
  Clock::time_point start_ = Clock::now();
  std::shared_ptr<model::Transformer> model_;
  std::shared_ptr<model::LoraAdapter> adapter_;  // null in full training
  Trainable trainable_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<StepRunner> runner_;
  std::optional<Schedule> schedule_;
  GradScaler scaler_{false};
  int64_t micro_batch_tokens_ = 0;
  double dropout_ = 0;  // before the adapter
  int64_t total_steps_ = 0;
  std::optional<CheckpointStore::Found> found_;
  RunState state_;
  std::optional<Launched> launched_;
  int64_t first_step_ = 0;  // before this process's first
  Clock::time_point begin_, step_begin_;
  int64_t saved_step_ = 0;
  Clock::time_point last_save_;
  std::unique_ptr<BatchLoader> loader_;  // last: it uses what is above
};

}  // namespace

Result<TrainReport> train(const TrainOptions& options) {
  try {
    LORRY_TRY(check_options(options));
    std::unique_ptr<store::Claim> claim;
    std::string claimed;
    while (true) {
      LORRY_ASSIGN(Inputs inputs, open_inputs(options));
      if (!are_expected(inputs, options)) {
        TrainReport changed;
        changed.input_changed = true;
        return changed;
      }
      LORRY_ASSIGN(const auto done, find_published(options, inputs));
      if (done) return *done;
      const std::string key = sha256_hex(dump_json(inputs.identity));
      if (claim && claimed == key) {
        inputs.bucket = claim->bucket();
        LORRY_TRY(open_rows(inputs, options));
        return Trainer(options, std::move(inputs), *claim).run();
      }
      // Who had it before may have finished the run, or changed what it is made of.
      claim.reset();
      claimed = key;
      LORRY_ASSIGN(claim, store::Claim::take(inputs.bucket, work_of(options, key), options.wait));
    }
  } catch (const c10::OutOfMemoryError& e) {
    return unavailable("out of memory; try a smaller --max-length or --batch-size");
  } catch (const c10::Error& e) {
    return unavailable(fmt::format("training failed in libtorch: {}", e.what_without_backtrace()));
  } catch (const std::bad_alloc&) {
    return unavailable("out of memory; try a smaller --max-length or --batch-size");
  } catch (const std::exception& e) {
    return unavailable(fmt::format("training failed: {}", e.what()));
  }
}

}  // namespace lorry::train

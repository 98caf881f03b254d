#include "attention_worker/core/engine.h"

#include <algorithm>
#include <string>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "attention_worker/core/engine_metrics.h"
#include "attention_worker/core/grammar_compiler.h"
#include "attention_worker/core/request_limits.h"
#include "attention_worker/core/state_transfers.h"
#include "attention_worker/core/step_loop.h"
#include "attention_worker/scheduler/decode_first.h"
#include "base/check.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"

namespace switchyard::attention_worker {
namespace {

// How long the idle step thread sleeps when nobody wakes it.
constexpr absl::Duration kIdleWait = absl::Hours(1);

// For states that are to be on disk when the process has ended.
constexpr absl::Duration kSaveGrace = absl::Seconds(10);

int64_t TokensOf(const GenerationRequest& request) {
  return static_cast<int64_t>(request.prompt_ids.size() +
                              request.resumed_output_ids.size());
}

RequestLimits LimitsOf(const Engine::Options& options) {
  const StateShape& shape = options.runner->state_shape();
  RequestLimits limits;
  limits.vocab_size = options.vocab_size;
  limits.max_model_len = options.max_model_len;
  limits.state_memory_bytes = options.state_memory_bytes;
  if (options.store != nullptr) {
    // What is being written to disk while it is evicted is not free at once.
    limits.state_memory_bytes -=
        std::max(shape.FixedBytes(), shape.PageBytes());
  }
  limits.state_costs = shape.Costs();
  return limits;
}

absl::Status CheckOptions(const Engine::Options& options) {
  SY_CHECK(options.runner != nullptr && options.clock != nullptr);
  const auto at_least_one = [](const char* name, int64_t value) {
    return value >= 1 ? absl::OkStatus()
                      : absl::InvalidArgumentError(absl::StrCat(
                            name, " is ", value, "; it must be 1 or more"));
  };
  SY_RETURN_IF_ERROR(at_least_one("vocab_size", options.vocab_size));
  SY_RETURN_IF_ERROR(
      at_least_one("max_running_requests", options.max_running_requests));
  SY_RETURN_IF_ERROR(
      at_least_one("max_queued_requests", options.max_queued_requests));
  SY_RETURN_IF_ERROR(
      at_least_one("max_queued_tokens", options.max_queued_tokens));
  SY_RETURN_IF_ERROR(
      at_least_one("chunked_prefill_size", options.chunked_prefill_size));
  if (options.max_model_len < 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_model_len is ", options.max_model_len,
        "; it must be 2 or more: a prompt token and one of output"));
  }
  const RequestLimits limits = LimitsOf(options);
  if (limits.LongestSequence() < 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "state_memory_bytes is ", options.state_memory_bytes,
        "; one sequence takes ", limits.state_costs.fixed_bytes, " bytes and ",
        limits.state_costs.page_bytes, " bytes more for each ",
        limits.state_costs.page_tokens, " tokens"));
  }
  return absl::OkStatus();
}

// Two kinds of thread meet here, and only at what mutex_ guards: any thread
// calls the public methods; the step thread owns the StepLoop, and so needs no
// lock for it. Sinks are called without the lock.
class EngineImpl final : public Engine {
 public:
  EngineImpl(Options options, std::unique_ptr<StateMemory> memory)
      : options_(std::move(options)),
        limits_(LimitsOf(options_)),
        memory_(std::move(memory)) {
    if (options_.metrics == nullptr) {
      own_registry_ = metrics::Registry::Create();
      own_metrics_ = std::make_unique<EngineMetrics>(own_registry_.get(), "",
                                                     options_.max_model_len);
      options_.metrics = own_metrics_.get();
    }
    load_.state_bytes_budget = options_.state_memory_bytes;
    if (options_.vocabulary != nullptr) {
      compiler_ = std::make_unique<GrammarCompiler>(options_.vocabulary);
    }
    step_thread_ = StartThread("sy-step", [this] { Run(); });
  }

  ~EngineImpl() override { Stop(); }

  absl::Status Submit(GenerationRequest request,
                      std::unique_ptr<TokenSink> sink) override
      ABSL_LOCKS_EXCLUDED(mutex_) {
    SY_RETURN_IF_ERROR(CheckRequest(request, limits_));
    if (!request.format) return Enqueue(std::move(request), std::move(sink));
    if (compiler_ == nullptr) {
      return absl::FailedPreconditionError(
          "this worker has no tokenizer, and so cannot hold an output to a "
          "grammar; put tokenizer.json into its model directory");
    }
    return CompileThenEnqueue(std::move(request), std::move(sink));
  }

  void Cancel(const std::string& id) override ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    // Only ids of live requests are kept, so the set is no larger than they
    // are.
    const auto it = live_.find(id);
    if (it == live_.end()) return;
    if (it->second.compiling) {
      it->second.cancelled = true;  // told to the loop when it knows the id
      return;
    }
    cancelled_.insert(id);
    wake_.Signal();
  }

  absl::Status FlushCache() override ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (!live_.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("the cache is in use: ", live_.size(),
                       " requests wait or run; try again when they are done"));
    }
    flush_ = true;
    wake_.Signal();
    return absl::OkStatus();
  }

  EngineLoad load() const override ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    EngineLoad load = load_;
    load.transfers = open_transfers_.use_count() - 1;
    load.waiting = static_cast<int64_t>(live_.size()) - load.running;
    return load;
  }

  void BetweenSteps(Task task) override ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      if (!stopped_) {
        tasks_.push_back(std::move(task));
        wake_.Signal();
        return;
      }
    }
    task(nullptr);
  }

  const StateShape& state_shape() const override { return memory_->shape(); }

  void Stop() override ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      wake_.Signal();
    }
    // What it still has comes to the inbox, and the step thread waits for it.
    if (compiler_ != nullptr) compiler_->Stop();
    // Several callers may come at once; all return after the thread has ended.
    MutexLock lock(&join_mutex_);
    if (step_thread_.joinable()) step_thread_.join();
  }

 private:
  struct Arrival {
    GenerationRequest request;
    std::unique_ptr<TokenSink> sink;
    absl::Time submitted;
    absl::Status refused = absl::OkStatus();
  };
  struct Live {
    int64_t tokens = 0;  // prompt and resumed ones
    bool compiling = false;
    bool cancelled = false;  // while compiling
  };

  absl::Status Enqueue(GenerationRequest request,
                       std::unique_ptr<TokenSink> sink)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    SY_RETURN_IF_ERROR(AdmitLocked(request, /*compiling=*/false));
    inbox_.push_back(
        {std::move(request), std::move(sink), options_.clock->Now()});
    wake_.Signal();
    return absl::OkStatus();
  }

  absl::Status CompileThenEnqueue(GenerationRequest request,
                                  std::unique_ptr<TokenSink> sink)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    // std::function wants to copy what it holds.
    const auto arrival = std::make_shared<Arrival>();
    {
      MutexLock lock(&mutex_);
      SY_RETURN_IF_ERROR(AdmitLocked(request, /*compiling=*/true));
      ++compiling_;
      *arrival = {std::move(request), std::move(sink), options_.clock->Now()};
    }
    const OutputFormat& format = *arrival->request.format;
    compiler_->Compile(
        format.kind, format.text,
        format.reasoning == OutputReasoning::kNone ? 0 : kNewlinesBehindThought,
        [this, arrival](GrammarCompiler::Result compiled) {
          if (compiled.ok()) {
            arrival->request.grammar = *std::move(compiled);
          } else {
            arrival->refused = compiled.status();
          }
          MutexLock lock(&mutex_);
          --compiling_;
          Live& live = live_.at(arrival->request.id);
          live.compiling = false;
          if (live.cancelled) cancelled_.insert(arrival->request.id);
          inbox_.push_back(std::move(*arrival));
          wake_.Signal();
        });
    return absl::OkStatus();
  }

  // Takes the request into the number of live ones.
  absl::Status AdmitLocked(const GenerationRequest& request, bool compiling)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const int64_t tokens = TokensOf(request);
    if (stopping_) {
      return absl::UnavailableError(
          "this worker is stopping; send the request to another one");
    }
    const int64_t waiting = static_cast<int64_t>(live_.size()) - load_.running;
    if (waiting >= options_.max_queued_requests) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "the queue is full: ", waiting, " requests wait (the limit is ",
          options_.max_queued_requests, ") and ", load_.running,
          " run; try later, or another worker"));
    }
    if (live_tokens_ + tokens > options_.max_queued_tokens) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "the queue is full: the ", live_.size(), " requests here have ",
          live_tokens_, " tokens, and this one ", tokens, " (the limit is ",
          options_.max_queued_tokens, "); try later, or another worker"));
    }
    const Live live = {.tokens = tokens, .compiling = compiling};
    if (!live_.emplace(request.id, live).second) {
      return absl::AlreadyExistsError(
          absl::StrCat("a request with the id ", request.id, " is running"));
    }
    live_tokens_ += tokens;
    options_.metrics->RequestAccepted(request);
    return absl::OkStatus();
  }

  StepLoop::Options LoopOptions() {
    StepLoop::Options loop;
    loop.runner = options_.runner;
    loop.memory = memory_.get();
    loop.prefix_caching = options_.prefix_caching;
    loop.store = options_.store;
    loop.mtp_head = options_.mtp_head;
    loop.adaptive_drafts = options_.adaptive_drafts;
    loop.policy = &policy_;
    loop.metrics = options_.metrics;
    loop.timer = options_.timer;
    loop.pool = options_.pool != nullptr ? options_.pool : &inline_pool_;
    loop.clock = options_.clock;
    loop.limits = limits_;
    loop.max_running_requests = options_.max_running_requests;
    loop.chunked_prefill_size = options_.chunked_prefill_size;
    loop.on_done = [this](const std::string& id) { Forget(id); };
    loop.on_load = [this](const EngineLoad& load) {
      MutexLock lock(&mutex_);
      load_ = load;
    };
    loop.open_transfers = open_transfers_;
    return loop;
  }

  // The step thread.
  void Run() ABSL_LOCKS_EXCLUDED(mutex_) {
    StepLoop loop(LoopOptions());
    bool stopping = false;
    while (!stopping) {
      std::vector<Arrival> arrivals;
      std::vector<Task> tasks;
      absl::flat_hash_set<std::string> cancelled;
      bool flush = false;
      {
        MutexLock lock(&mutex_);
        while (loop.empty() && inbox_.empty() && tasks_.empty() && !flush_ &&
               !stopping_) {
          wake_.WaitUntil(&mutex_, absl::Now() + kIdleWait);
        }
        arrivals.swap(inbox_);
        tasks.swap(tasks_);
        cancelled.swap(cancelled_);
        flush = std::exchange(flush_, false);
        stopping = stopping_;
      }
      // Nothing ran when it was asked for, so what has arrived came after.
      if (flush) loop.FlushCache();
      AddAll(std::move(arrivals), &loop);
      for (const Task& task : tasks) task(loop.transfers());
      if (!stopping) loop.Step(cancelled);
    }
    std::vector<Arrival> compiled;
    {
      // The compiler is stopping too: it has a last word on each.
      MutexLock lock(&mutex_);
      while (compiling_ > 0) {
        wake_.WaitUntil(&mutex_, absl::Now() + kIdleWait);
      }
      compiled.swap(inbox_);
    }
    AddAll(std::move(compiled), &loop);
    loop.FailAll(absl::UnavailableError(
        "this worker is stopping; send the request to another one"));
    // While the loop's cache still has what is to be saved.
    if (options_.store != nullptr) {
      options_.store->Flush(absl::Now() + kSaveGrace);
    }
    std::vector<Task> tasks;
    {
      MutexLock lock(&mutex_);
      stopped_ = true;
      tasks.swap(tasks_);
    }
    for (const Task& task : tasks) task(nullptr);
    MutexLock lock(&mutex_);
    SY_CHECK(live_.empty() && live_tokens_ == 0 && inbox_.empty());
  }

  static void AddAll(std::vector<Arrival> arrivals, StepLoop* loop) {
    for (Arrival& arrival : arrivals) {
      if (arrival.refused.ok()) {
        loop->Add(arrival.request, std::move(arrival.sink), arrival.submitted);
      } else {
        loop->Refuse(arrival.request, std::move(arrival.sink),
                     arrival.submitted, arrival.refused);
      }
    }
  }

  void Forget(const std::string& id) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    const auto it = live_.find(id);
    SY_CHECK(it != live_.end());
    live_tokens_ -= it->second.tokens;
    live_.erase(it);
    // A cancellation that came too late must not hit a later request of this
    // id.
    cancelled_.erase(id);
  }

  InlinePool inline_pool_;  // stands for a pool that is not given
  Options options_;
  const RequestLimits limits_;
  const std::unique_ptr<StateMemory> memory_;
  const DecodeFirst policy_;
  std::unique_ptr<metrics::Registry> own_registry_;
  std::unique_ptr<EngineMetrics> own_metrics_;

  mutable Mutex mutex_;
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // Requests accepted and not yet done: bounded by max_queued_requests and
  // max_running_requests together. The inbox and the cancellations are part of
  // them.
  absl::flat_hash_map<std::string, Live> live_ ABSL_GUARDED_BY(mutex_);
  int64_t live_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<Arrival> inbox_ ABSL_GUARDED_BY(mutex_);
  // As many as states are on their way, which the service bounds.
  std::vector<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;  // no step comes any more
  absl::flat_hash_set<std::string> cancelled_ ABSL_GUARDED_BY(mutex_);
  bool flush_ ABSL_GUARDED_BY(mutex_) = false;
  EngineLoad load_ ABSL_GUARDED_BY(mutex_);
  int64_t compiling_ ABSL_GUARDED_BY(mutex_) = 0;

  std::unique_ptr<GrammarCompiler> compiler_;  // null: no vocabulary

  // Its other owners are the states on their way out.
  const std::shared_ptr<const void> open_transfers_ =
      std::make_shared<const char>();

  Mutex join_mutex_;
  std::thread step_thread_ ABSL_GUARDED_BY(join_mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(Options options) {
  SY_RETURN_IF_ERROR(CheckOptions(options));
  SY_ASSIGN_OR_RETURN(std::unique_ptr<StateMemory> memory,
                      StateMemory::Create(options.runner->state_shape(),
                                          options.state_memory_bytes));
  return std::unique_ptr<Engine>(
      new EngineImpl(std::move(options), std::move(memory)));
}

}  // namespace switchyard::attention_worker

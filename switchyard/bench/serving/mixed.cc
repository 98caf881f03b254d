#include "switchyard/bench/serving/mixed.h"

#include <unistd.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "switchyard/bench/serving/prompts.h"
#include "switchyard/bench/serving/stream.h"
#include "switchyard/bench/worker_processes.h"

namespace switchyard::bench {
namespace {

constexpr double kTemperature = 0.7;
constexpr int64_t kAbortedOneOf = 5;
constexpr int64_t kWarmOneOf = 5;

// Longest session, in tokens.
int64_t LongestOf(const MixedOptions& options) {
  return options.most_turns *
         (options.most_turn_tokens + options.most_answer_tokens);
}

// What the users' threads have in common. Thread-safe.
class Crowd {
 public:
  Crowd(const MixedOptions& options, int64_t vocab_size, ServingEngine* engine)
      : options_(options), vocab_size_(vocab_size), engine_(engine) {}

  // A user: one session after the other until there are no more.
  void Run() ABSL_LOCKS_EXCLUDED(mutex_) {
    while (true) {
      int64_t number = 0;
      {
        MutexLock lock(&mutex_);
        if (next_ >= options_.sessions || !status_.ok()) return;
        number = next_++;
      }
      const absl::Status status = RunSession(number);
      const int64_t resident = ResidentBytesOf(getpid());
      MutexLock lock(&mutex_);
      if (!status.ok() && status_.ok()) status_ = status;
      ++ended_;
      const bool warming =
          ended_ <= std::max<int64_t>(1, options_.sessions / kWarmOneOf);
      if (warming) result_.resident_warm_bytes = resident;
      result_.resident_peak_bytes =
          warming ? resident : std::max(result_.resident_peak_bytes, resident);
    }
  }

  absl::StatusOr<MixedResult> result() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    SY_RETURN_IF_ERROR(status_);
    return result_;
  }

 private:
  absl::Status RunSession(int64_t number) ABSL_LOCKS_EXCLUDED(mutex_) {
    std::mt19937_64 random(static_cast<uint64_t>(number));
    const auto up_to = [&random](int64_t most) {
      return 1 + static_cast<int64_t>(random() % static_cast<uint64_t>(most));
    };
    std::vector<int32_t> said;
    std::vector<int64_t> boundaries;
    const int64_t turns = up_to(options_.most_turns);
    for (int64_t t = 0; t < turns; ++t) {
      if (!said.empty()) {
        boundaries.push_back(static_cast<int64_t>(said.size()));
      }
      const std::vector<int32_t> words =
          RandomPrompt(up_to(options_.most_turn_tokens), vocab_size_, random());
      said.insert(said.end(), words.begin(), words.end());
      attention_worker::GenerationRequest request =
          NewRequest(said, up_to(options_.most_answer_tokens));
      request.prefix_boundaries = boundaries;
      request.sampling.temperature = kTemperature;
      request.sampling.seed = static_cast<uint64_t>(number);
      const bool abort = up_to(kAbortedOneOf) == 1;
      const int64_t abort_at = up_to(options_.most_answer_tokens) - 1;
      SY_ASSIGN_OR_RETURN(const StreamResult answer,
                          Ask(std::move(request), abort, abort_at));
      said.insert(said.end(), answer.ids.begin(), answer.ids.end());
    }
    return absl::OkStatus();
  }

  // What came of an aborted answer counts as an answer.
  absl::StatusOr<StreamResult> Ask(attention_worker::GenerationRequest request,
                                   bool abort, int64_t abort_at)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    const std::string id = request.id;
    attention_worker::Engine* const engine = engine_->engine();
    SY_ASSIGN_OR_RETURN(const std::shared_ptr<Stream> stream,
                        Stream::Submit(engine, std::move(request)));
    if (abort) {
      stream->WaitForTokens(abort_at);
      engine->Cancel(id);
    }
    absl::StatusOr<StreamResult> ended = stream->Wait();
    const bool aborted = abort && absl::IsCancelled(ended.status());
    if (aborted) ended = stream->SoFar();
    SY_RETURN_IF_ERROR(ended.status());
    SY_ASSIGN_OR_RETURN(const int64_t held, engine_->StateBytesHeld());
    MutexLock lock(&mutex_);
    result_.state_held_peak_bytes =
        std::max(result_.state_held_peak_bytes, held);
    ++result_.requests;
    result_.aborted += aborted ? 1 : 0;
    result_.output_tokens += static_cast<int64_t>(ended->ids.size());
    return ended;
  }

  const MixedOptions options_;
  const int64_t vocab_size_;
  ServingEngine* const engine_;
  mutable Mutex mutex_;
  int64_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t ended_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  MixedResult result_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<MixedResult> MeasureMixed(ServingModel* model,
                                         const MixedOptions& options) {
  const int64_t longest = LongestOf(options);
  if (longest > model->context()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a session may have ", longest, " tokens; the context of ",
        model->checkpoint().directory(), " is ", model->context()));
  }
  ServingModel::EngineSettings settings;
  settings.max_draft_tokens = model->has_mtp() ? options.max_draft_tokens : 0;
  settings.chunked_prefill_size = options.prefill_chunk;
  settings.state_memory_bytes = model->StateBytes(
      settings.max_draft_tokens, options.budget_sessions, longest, 0);
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<ServingEngine> engine,
                      model->NewEngine(settings));
  Crowd crowd(options, model->vocab_size(), engine.get());
  std::vector<std::thread> users;
  for (int i = 0; i < options.users; ++i) {
    users.push_back(
        StartThread(absl::StrCat("user-", i), [&crowd] { crowd.Run(); }));
  }
  for (std::thread& user : users) user.join();
  SY_ASSIGN_OR_RETURN(MixedResult result, crowd.result());
  result.options = options;
  result.state_budget_bytes = settings.state_memory_bytes;
  const attention_worker::EngineLoad idle = engine->engine()->load();
  if (idle.running != 0 || idle.waiting != 0 || idle.state_bytes_used != 0) {
    return absl::InternalError(
        absl::StrCat("all requests have ended, but the engine says that ",
                     idle.running, " run, ", idle.waiting, " wait and ",
                     idle.state_bytes_used, " bytes of states are theirs"));
  }
  return result;
}

}  // namespace switchyard::bench

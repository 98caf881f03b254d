// An attention worker that says what a test tells it to, token by token.

#ifndef SWITCHYARD_TESTS_TESTING_SCRIPTED_ATTENTION_CLIENT_H_
#define SWITCHYARD_TESTS_TESTING_SCRIPTED_ATTENTION_CLIENT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "base/mutex.h"
#include "router/client/attention_client.h"

namespace switchyard::testing {

// The logprob of a token; a float32 that no short decimal names.
float FakeLogprob(int32_t id, int64_t position);

// Keeps the contract of AttentionClient: positions count on, logprobs come only
// if asked for, one thread at a time calls a listener, nothing comes after
// OnDone. Thread-safe.
class ScriptedAttentionClient final : public router::AttentionClient {
 public:
  // One request at the worker, which the test answers.
  class Call {
   public:
    Call(router::TokenRequest request,
         std::shared_ptr<router::TokenListener> listener);

    const router::TokenRequest& request() const { return request_; }
    // Both do nothing after the end, of which Token() tells with false.
    bool Token(int32_t id);
    void Done(absl::Status status,
              router::TokenFinish finish = router::TokenFinish::kStop);
    // Those of the prompt whose logprobs were asked for, if any.
    void PromptTokens();
    // A token of a position whose turn it may not be.
    void TokenAt(int32_t id, int64_t position);
    bool cancelled() const;
    bool WaitUntilCancelled(absl::Time deadline);
    // As the client of a worker that is silent or drains does.
    void AdviseMove();
    // For usage.
    void set_cached_prompt_tokens(int64_t count) { cached_ = count; }

   private:
    friend class ScriptedAttentionClient;
    void Cancel();
    // Null after the end.
    std::shared_ptr<router::TokenListener> Listener();

    const router::TokenRequest request_;
    std::atomic<int64_t> cached_{0};
    Mutex calling_;  // held while the listener is called
    mutable Mutex mutex_;
    CondVar changed_;
    std::shared_ptr<router::TokenListener> listener_ ABSL_GUARDED_BY(mutex_);
    int64_t sent_ ABSL_GUARDED_BY(mutex_) = 0;
    bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  };

  // Ready, until told otherwise.
  explicit ScriptedAttentionClient(std::string name);
  // What is not answered yet fails with UNAVAILABLE.
  ~ScriptedAttentionClient() override;

  // --- What a test tells it. ---

  void SetInfo(router::AttentionWorkerInfo info);
  void SetState(router::AttentionWorkerInfo::State state,
                std::string message = "");
  // From now on every request is answered at once with these tokens (without
  // those it resumes), up to its max_tokens or one of its stop tokens.
  void Answer(std::vector<int32_t> ids);
  // From now on every request fails at once; OK: no longer.
  void FailAll(absl::Status status);
  // Request number `index`, from 0, when it has come; null if `deadline` came
  // first.
  std::shared_ptr<Call> WaitForCall(size_t index, absl::Time deadline);
  size_t num_calls() const;
  // From now on states can be moved, when the test says so.
  void LetHandOver();
  struct HandOverOrder {
    std::string request_id;
    router::AttentionClient* to = nullptr;
    std::function<void(const absl::StatusOr<router::HandedOver>&)> done;
  };
  // The first one, when it has come.
  absl::optional<HandOverOrder> WaitForHandOver(absl::Time deadline);

  // --- AttentionClient. ---
  std::string name() const override { return name_; }
  router::AttentionWorkerInfo info() const override;
  void Generate(router::TokenRequest request,
                std::shared_ptr<router::TokenListener> listener) override;
  void Cancel(const std::string& request_id) override;
  void FlushCache(std::function<void(absl::Status)> done) override;
  int num_flushes() const;
  void AskNow() override;
  int num_asks() const;  // by AskNow()
  // Waits for the test's TakeHandOver() if LetHandOver() was called, else
  // nothing can be moved.
  void HandOver(const std::string& request_id, router::AttentionClient* to,
                std::function<void(const absl::StatusOr<router::HandedOver>&)>
                    done) override;

 private:
  const std::string name_;
  mutable Mutex mutex_;
  CondVar changed_;
  router::AttentionWorkerInfo info_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<Call>> calls_ ABSL_GUARDED_BY(mutex_);
  absl::optional<std::vector<int32_t>> answer_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  int num_flushes_ ABSL_GUARDED_BY(mutex_) = 0;
  int num_asks_ ABSL_GUARDED_BY(mutex_) = 0;
  bool can_hand_over_ ABSL_GUARDED_BY(mutex_) = false;
  absl::optional<HandOverOrder> hand_over_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_SCRIPTED_ATTENTION_CLIENT_H_

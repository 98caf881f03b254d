#include "tests/testing/scripted_attention_client.h"

#include "absl/algorithm/container.h"

namespace switchyard::testing {

using router::AttentionWorkerInfo;
using router::TokenFinish;
using router::TokenListener;
using router::TokenRequest;

float FakeLogprob(int32_t id, int64_t position) {
  return -0.1f - static_cast<float>(id % 97) / 7.0f -
         static_cast<float>(position % 13) / 11.0f;
}

ScriptedAttentionClient::Call::Call(TokenRequest request,
                                    std::shared_ptr<TokenListener> listener)
    : request_(std::move(request)),
      listener_(std::move(listener)),
      sent_(static_cast<int64_t>(request_.resumed_output_ids.size())) {}

std::shared_ptr<TokenListener> ScriptedAttentionClient::Call::Listener() {
  MutexLock lock(&mutex_);
  return listener_;
}

bool ScriptedAttentionClient::Call::Token(int32_t id) {
  int64_t position = 0;
  bool first = false;
  {
    MutexLock lock(&mutex_);
    first = sent_ == static_cast<int64_t>(request_.resumed_output_ids.size());
    position = static_cast<int64_t>(request_.prompt_ids.size()) + sent_;
    ++sent_;
  }
  MutexLock calling(&calling_);
  const auto listener = Listener();
  if (listener == nullptr) return false;
  router::TokenEvent event;
  event.id = id;
  event.position = position;
  if (first) event.cached_prompt_tokens = cached_;
  if (request_.want_logprobs) {
    event.logprob = FakeLogprob(id, position);
    for (int i = 0; i < request_.num_top_logprobs; ++i) {
      event.top_logprobs.emplace_back(
          i == 0 ? id : i, event.logprob - static_cast<float>(i) / 3.0f);
    }
  }
  listener->OnToken(event);
  return true;
}

void ScriptedAttentionClient::Call::PromptTokens() {
  if (!request_.prompt_logprobs_from) return;
  MutexLock calling(&calling_);
  const auto listener = Listener();
  if (listener == nullptr) return;
  for (size_t i = static_cast<size_t>(*request_.prompt_logprobs_from);
       i < request_.prompt_ids.size(); ++i) {
    router::TokenEvent event;
    event.id = request_.prompt_ids[i];
    event.position = static_cast<int64_t>(i);
    event.logprob = FakeLogprob(event.id, event.position);
    for (int top = 0; top < request_.num_top_logprobs; ++top) {
      event.top_logprobs.emplace_back(
          top == 0 ? event.id : top,
          event.logprob - static_cast<float>(top) / 3.0f);
    }
    // Who asks for no others does not see that it is the first.
    event.rank =
        request_.num_top_logprobs > 0 ? 1 : 40 + static_cast<int64_t>(i);
    listener->OnToken(event);
  }
}

void ScriptedAttentionClient::Call::TokenAt(int32_t id, int64_t position) {
  MutexLock calling(&calling_);
  router::TokenEvent event;
  event.id = id;
  event.position = position;
  if (const auto listener = Listener()) listener->OnToken(event);
}

void ScriptedAttentionClient::Call::Done(absl::Status status,
                                         TokenFinish finish) {
  MutexLock calling(&calling_);
  std::shared_ptr<TokenListener> listener;
  router::TokenUsage usage;
  {
    MutexLock lock(&mutex_);
    listener = std::exchange(listener_, nullptr);
    usage.output_tokens = sent_;
  }
  if (listener == nullptr) return;
  usage.prompt_tokens = static_cast<int64_t>(request_.prompt_ids.size());
  usage.cached_prompt_tokens = cached_;
  usage.queue_time = absl::Milliseconds(1);
  usage.prefill_time = absl::Milliseconds(10);
  usage.decode_time = absl::Milliseconds(100);
  listener->OnDone(status, finish, usage);
}

void ScriptedAttentionClient::Call::Cancel() {
  {
    MutexLock lock(&mutex_);
    cancelled_ = true;
    changed_.SignalAll();
  }
  Done(absl::CancelledError("cancelled by the router"));
}

bool ScriptedAttentionClient::Call::cancelled() const {
  MutexLock lock(&mutex_);
  return cancelled_;
}

bool ScriptedAttentionClient::Call::WaitUntilCancelled(absl::Time deadline) {
  MutexLock lock(&mutex_);
  while (!cancelled_) {
    if (!changed_.WaitUntil(&mutex_, deadline)) return cancelled_;
  }
  return true;
}

void ScriptedAttentionClient::Call::AdviseMove() {
  if (const auto listener = Listener()) listener->OnMoveAdvised();
}

ScriptedAttentionClient::ScriptedAttentionClient(std::string name)
    : name_(std::move(name)) {
  info_.state = AttentionWorkerInfo::State::kReady;
  info_.instance_id = name_;
  info_.model_fingerprint = "0123456789abcdef";
  info_.version = "test";
  info_.loading_progress = 1;
}

ScriptedAttentionClient::~ScriptedAttentionClient() {
  std::vector<std::shared_ptr<Call>> calls;
  {
    MutexLock lock(&mutex_);
    calls = calls_;
  }
  for (const auto& call : calls) {
    call->Done(absl::UnavailableError("the fake worker is gone"));
  }
}

void ScriptedAttentionClient::SetInfo(AttentionWorkerInfo info) {
  MutexLock lock(&mutex_);
  info_ = std::move(info);
}

void ScriptedAttentionClient::SetState(AttentionWorkerInfo::State state,
                                       std::string message) {
  MutexLock lock(&mutex_);
  info_.state = state;
  info_.message = std::move(message);
}

void ScriptedAttentionClient::Answer(std::vector<int32_t> ids) {
  MutexLock lock(&mutex_);
  answer_ = std::move(ids);
}

void ScriptedAttentionClient::FailAll(absl::Status status) {
  MutexLock lock(&mutex_);
  failure_ = std::move(status);
}

AttentionWorkerInfo ScriptedAttentionClient::info() const {
  MutexLock lock(&mutex_);
  return info_;
}

size_t ScriptedAttentionClient::num_calls() const {
  MutexLock lock(&mutex_);
  return calls_.size();
}

std::shared_ptr<ScriptedAttentionClient::Call>
ScriptedAttentionClient::WaitForCall(size_t index, absl::Time deadline) {
  MutexLock lock(&mutex_);
  while (calls_.size() <= index) {
    if (!changed_.WaitUntil(&mutex_, deadline) && calls_.size() <= index) {
      return nullptr;
    }
  }
  return calls_[index];
}

void ScriptedAttentionClient::Generate(
    TokenRequest request, std::shared_ptr<TokenListener> listener) {
  const auto call =
      std::make_shared<Call>(std::move(request), std::move(listener));
  absl::optional<std::vector<int32_t>> answer;
  absl::Status failure;
  {
    MutexLock lock(&mutex_);
    calls_.push_back(call);
    answer = answer_;
    failure = failure_;
    changed_.SignalAll();
  }
  if (!failure.ok()) return call->Done(failure);
  if (!answer) return;
  const TokenRequest& asked = call->request();
  call->PromptTokens();
  TokenFinish finish = TokenFinish::kStop;
  for (size_t i = asked.resumed_output_ids.size(); i < answer->size(); ++i) {
    call->Token((*answer)[i]);
    if (absl::c_linear_search(asked.stop_token_ids, (*answer)[i])) break;
    if (static_cast<int64_t>(i) + 1 >= asked.max_tokens) {
      finish = TokenFinish::kLength;
      break;
    }
  }
  call->Done(absl::OkStatus(), finish);
}

void ScriptedAttentionClient::FlushCache(
    std::function<void(absl::Status)> done) {
  absl::Status failure;
  {
    MutexLock lock(&mutex_);
    ++num_flushes_;
    failure = failure_;
  }
  done(failure);
}

int ScriptedAttentionClient::num_flushes() const {
  MutexLock lock(&mutex_);
  return num_flushes_;
}

void ScriptedAttentionClient::AskNow() {
  MutexLock lock(&mutex_);
  ++num_asks_;
}

int ScriptedAttentionClient::num_asks() const {
  MutexLock lock(&mutex_);
  return num_asks_;
}

void ScriptedAttentionClient::LetHandOver() {
  MutexLock lock(&mutex_);
  can_hand_over_ = true;
}

absl::optional<ScriptedAttentionClient::HandOverOrder>
ScriptedAttentionClient::WaitForHandOver(absl::Time deadline) {
  MutexLock lock(&mutex_);
  while (!hand_over_) {
    if (!changed_.WaitUntil(&mutex_, deadline)) return absl::nullopt;
  }
  return hand_over_;
}

void ScriptedAttentionClient::HandOver(
    const std::string& request_id, router::AttentionClient* to,
    std::function<void(const absl::StatusOr<router::HandedOver>&)> done) {
  {
    MutexLock lock(&mutex_);
    if (can_hand_over_) {
      hand_over_ = HandOverOrder{request_id, to, std::move(done)};
      changed_.SignalAll();
      return;
    }
  }
  done(absl::UnimplementedError("states of this fake cannot be moved"));
}

void ScriptedAttentionClient::Cancel(const std::string& request_id) {
  std::shared_ptr<Call> found;
  {
    MutexLock lock(&mutex_);
    for (const auto& call : calls_) {
      if (call->request().id == request_id) found = call;
    }
  }
  if (found != nullptr) found->Cancel();
}

}  // namespace switchyard::testing

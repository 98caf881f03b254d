#include "attention_worker/client/grpc_expert_client.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "attention_worker/client/expert_codec.h"
#include "attention_worker/moe/expert_client_metrics.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "grpcpp/alarm.h"
#include "grpcpp/client_context.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/generic_stub.h"
#include "rpc/channel.h"
#include "rpc/message_buffer.h"
#include "rpc/status_conversion.h"

namespace switchyard::attention_worker {
namespace {

constexpr char kConnectMethod[] = "/switchyard.v1.Expert/Connect";

// How often the thread looks up when nothing happens. A Forward whose deadline
// is nearer wakes it, so this bounds no latency.
constexpr absl::Duration kIdleTick = absl::Milliseconds(250);

// A stream that lived this long was a good one: the next attempt is made at
// once, and the back-off starts anew.
constexpr absl::Duration kStableAfter = absl::Seconds(1);

// Tags of the completion queue. One stream at a time, and each kind of
// operation once at a time, so the kind says it all.
enum class Op : intptr_t { kStart = 1, kRead, kWrite, kFinish, kWake };

void* Tag(Op op) {
  return reinterpret_cast<void*>(  // NOLINT(performance-no-int-to-ptr)
      static_cast<intptr_t>(op));
}

class GrpcExpertClient final : public ExpertClient {
 public:
  explicit GrpcExpertClient(GrpcExpertClientOptions options);
  ~GrpcExpertClient() override;

  std::string name() const override { return options_.address; }
  model::ExpertSet holdings() const override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status health() const override ABSL_LOCKS_EXCLUDED(mutex_);
  int64_t max_call_rows() const override ABSL_LOCKS_EXCLUDED(mutex_);
  void SetListener(std::function<void()> listener) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Forward(ExpertCall call, Done done) override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // kIdle -> kHandshaking -> kReady -> kEnding -> kIdle, or from kHandshaking
  // straight to kEnding.
  enum class State {
    kIdle,         // no stream; the next attempt is at next_attempt_
    kHandshaking,  // a stream is being made, or waits for `welcome`
    kReady,        // rows may be sent
    kEnding,       // failed; its operations come back, then Finish
  };

  struct Stream {
    grpc::ClientContext context;
    std::unique_ptr<grpc::GenericClientAsyncReaderWriter> rpc;
    grpc::ByteBuffer incoming;
    grpc::Status status;           // Finish's
    bool waits_for_ready = false;  // else an unreachable worker fails at once
    bool reached = false;          // a server answered the call's beginning
    bool starting = true;          // operations that have not come back
    bool reading = false;
    bool writing = false;
    bool finishing = false;
    absl::Time handshake_deadline;
    absl::Time ready_since = absl::InfiniteFuture();
    // Why this side ended it; OK: the other side did.
    absl::Status ended_here;
  };

  struct Waiting {  // not sent yet
    ExpertCall call;
    Done done;
    absl::Time start;
  };
  struct Sent {
    Done done;  // null: given up; the rows still count
    absl::Time start;
    absl::Time deadline;
    int64_t num_rows;
    int64_t num_outputs;
  };

  // What to do once the mutex is free: callbacks may call back.
  struct Effects {
    std::vector<std::pair<Done, absl::StatusOr<ExpertReply>>> finished;
    std::function<void()> listener;
  };
  static void Carry(Effects effects);

  // The thread.
  void Loop();
  absl::Time PlanWake() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnEvent(Op op, bool ok, Effects* effects)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Timers: attempts, handshakes, calls. True: all is over.
  bool Tick(Effects* effects) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void StartStream() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnMessage(Effects* effects) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status OnReply(const v1::ExpertReply& reply, Effects* effects)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status OnWelcome(const v1::Welcome& welcome, Effects* effects)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status OnResult(const v1::Result& result, Effects* effects)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndStream(absl::Status ended_here, Effects* effects)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FinishIfQuiet() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnFinished() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PlanNextAttempt(bool refused) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void WriteNext(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Write(const v1::ExpertRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ExpireCalls(absl::Time now, Effects* effects)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FailCall(Done done, absl::Status status, Effects* effects)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckRoom(const ExpertCall& call, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetHoldings(model::ExpertSet holdings, Effects* effects)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Wake() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const GrpcExpertClientOptions options_;
  const ExpectedWorker expected_;
  ExpertClientMetrics metrics_;
  metrics::Counter* const sent_bytes_;
  metrics::Counter* const received_bytes_;
  metrics::Counter* const unmatched_replies_;
  metrics::Counter* const reconnects_;
  metrics::Gauge* const connected_;

  grpc::CompletionQueue queue_;
  grpc::GenericStub stub_;

  mutable Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kIdle;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status health_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> listener_ ABSL_GUARDED_BY(mutex_);
  WorkerTerms terms_ ABSL_GUARDED_BY(mutex_);  // while kReady
  std::unique_ptr<Stream> stream_ ABSL_GUARDED_BY(mutex_);

  uint64_t next_sequence_ ABSL_GUARDED_BY(mutex_) = 1;
  std::deque<Waiting> waiting_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, Sent> sent_ ABSL_GUARDED_BY(mutex_);
  int64_t waiting_rows_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t sent_rows_ ABSL_GUARDED_BY(mutex_) = 0;

  absl::Time next_attempt_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  bool next_waits_for_ready_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration backoff_ ABSL_GUARDED_BY(mutex_);
  bool was_connected_ ABSL_GUARDED_BY(mutex_) = false;
  // When the thread will look up by itself.
  absl::Time wake_at_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  bool waking_ ABSL_GUARDED_BY(mutex_) = false;  // wake_ has not come back
  grpc::Alarm wake_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;  // last: uses everything above
};

GrpcExpertClient::GrpcExpertClient(GrpcExpertClientOptions options)
    : options_(std::move(options)),
      expected_{.model_fingerprint = options_.model_fingerprint,
                .num_layers = options_.num_layers,
                .num_experts = options_.num_experts,
                .hidden_size = options_.hidden_size},
      metrics_(options_.registry, options_.address),
      sent_bytes_(options_.registry->AddCounter(
          "switchyard_expert_dispatch_sent_bytes_total",
          "Bytes of messages sent to an expert worker.",
          {{"worker", options_.address}})),
      received_bytes_(options_.registry->AddCounter(
          "switchyard_expert_dispatch_received_bytes_total",
          "Bytes of messages received from an expert worker.",
          {{"worker", options_.address}})),
      unmatched_replies_(options_.registry->AddCounter(
          "switchyard_expert_dispatch_unmatched_replies_total",
          "Replies to calls that had been given up or never made; dropped.",
          {{"worker", options_.address}})),
      reconnects_(options_.registry->AddCounter(
          "switchyard_expert_worker_reconnects_total",
          "Handshakes after the first that an expert worker accepted.",
          {{"worker", options_.address}})),
      connected_(options_.registry->AddGauge(
          "switchyard_expert_worker_connected",
          "1 while an expert worker has accepted this one's handshake.",
          {{"worker", options_.address}})),
      stub_(rpc::NewChannel(options_.address)),
      health_(absl::UnavailableError("not connected yet")),
      backoff_(options_.min_backoff) {
  connected_->Set(0);
  thread_ = StartThread("expert-io", [this] { Loop(); });
}

GrpcExpertClient::~GrpcExpertClient() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    Wake();
  }
  thread_.join();
}

model::ExpertSet GrpcExpertClient::holdings() const {
  MutexLock lock(&mutex_);
  return terms_.holdings;
}

absl::Status GrpcExpertClient::health() const {
  MutexLock lock(&mutex_);
  return health_;
}

int64_t GrpcExpertClient::max_call_rows() const {
  MutexLock lock(&mutex_);
  return std::max<int64_t>(
      1, std::min(terms_.max_rows_in_flight, options_.max_queued_rows));
}

void GrpcExpertClient::SetListener(std::function<void()> listener) {
  MutexLock lock(&mutex_);
  listener_ = std::move(listener);
}

void GrpcExpertClient::Carry(Effects effects) {
  for (auto& [done, reply] : effects.finished) {
    std::move(done)(std::move(reply));
  }
  if (effects.listener) effects.listener();
}

// ---------------------------------------------------------------------------
// Calls.

absl::Status GrpcExpertClient::CheckRoom(const ExpertCall& call,
                                         absl::Time now) const {
  if (state_ != State::kReady || stopping_) {
    return absl::UnavailableError(stopping_ ? "shutting down"
                                            : std::string(health_.message()));
  }
  if (now >= call.deadline) {
    return absl::DeadlineExceededError("the deadline came before sending");
  }
  if (call.num_rows > terms_.max_rows_in_flight) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "a call of ", call.num_rows, " rows, but the worker takes ",
        terms_.max_rows_in_flight, " at a time"));
  }
  const int64_t queued = waiting_rows_ + sent_rows_;
  if (call.num_rows > options_.max_queued_rows - queued) {
    return absl::ResourceExhaustedError(absl::StrCat(
        queued, " of at most ", options_.max_queued_rows,
        " rows are waiting or in flight; no room for ", call.num_rows));
  }
  return absl::OkStatus();
}

void GrpcExpertClient::Forward(ExpertCall call, Done done) {
  SY_CHECK(static_cast<int64_t>(call.rows.size()) ==
           call.num_rows * options_.hidden_size);
  const absl::Time now = absl::Now();
  absl::Status status;
  {
    MutexLock lock(&mutex_);
    status = CheckRoom(call, now);
    if (status.ok()) {
      const absl::Time deadline = call.deadline;
      waiting_rows_ += call.num_rows;
      waiting_.push_back({std::move(call), std::move(done), now});
      // The writing starts here, on the caller's thread: handing it to the
      // other one would cost a wake-up in every layer.
      WriteNext(now);
      if (deadline < wake_at_) Wake();
      return;
    }
  }
  metrics_.CallFailed(status.code());
  std::move(done)(std::move(status));
}

void GrpcExpertClient::WriteNext(absl::Time now) {
  if (state_ != State::kReady || stream_->writing || waiting_.empty()) return;
  Waiting& next = waiting_.front();
  const int64_t num_rows = next.call.num_rows;
  if (sent_rows_ + num_rows > terms_.max_rows_in_flight) return;
  int64_t num_outputs = 0;
  for (const experts::ExpertRun& run : next.call.runs) {
    num_outputs += static_cast<int64_t>(run.rows.size());
  }
  const uint64_t sequence = next_sequence_++;
  const v1::ExpertRequest request = CallToProto(next.call, sequence, now);
  sent_.emplace(sequence, Sent{.done = std::move(next.done),
                               .start = next.start,
                               .deadline = next.call.deadline,
                               .num_rows = num_rows,
                               .num_outputs = num_outputs});
  waiting_.pop_front();
  waiting_rows_ -= num_rows;
  sent_rows_ += num_rows;
  Write(request);
}

void GrpcExpertClient::Write(const v1::ExpertRequest& request) {
  const grpc::ByteBuffer buffer = rpc::ToByteBuffer(request);
  sent_bytes_->Increment(static_cast<double>(buffer.Length()));
  stream_->writing = true;
  stream_->rpc->Write(buffer, Tag(Op::kWrite));
}

void GrpcExpertClient::FailCall(Done done, absl::Status status,
                                Effects* effects) {
  metrics_.CallFailed(status.code());
  effects->finished.emplace_back(std::move(done), std::move(status));
}

void GrpcExpertClient::ExpireCalls(absl::Time now, Effects* effects) {
  for (auto& [sequence, sent] : sent_) {
    if (now < sent.deadline || !sent.done) continue;
    FailCall(std::move(sent.done),
             absl::DeadlineExceededError("no answer before the deadline"),
             effects);
    sent.done = nullptr;
  }
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    if (now < it->call.deadline) {
      ++it;
      continue;
    }
    FailCall(std::move(it->done),
             absl::DeadlineExceededError(
                 "the deadline came while the worker had no room"),
             effects);
    waiting_rows_ -= it->call.num_rows;
    it = waiting_.erase(it);
  }
}

// ---------------------------------------------------------------------------
// The thread.

void GrpcExpertClient::Wake() {
  if (waking_) return;
  waking_ = true;
  wake_.Set(&queue_, std::chrono::system_clock::now(), Tag(Op::kWake));
}

absl::Time GrpcExpertClient::PlanWake() {
  absl::Time wake = absl::Now() + kIdleTick;
  if (state_ == State::kIdle) wake = std::min(wake, next_attempt_);
  if (state_ == State::kHandshaking) {
    wake = std::min(wake, stream_->handshake_deadline);
  }
  for (const auto& [sequence, sent] : sent_) {
    if (sent.done) wake = std::min(wake, sent.deadline);
  }
  for (const Waiting& waiting : waiting_) {
    wake = std::min(wake, waiting.call.deadline);
  }
  wake_at_ = wake;
  return wake;
}

void GrpcExpertClient::Loop() {
  while (true) {
    absl::Time wake;
    {
      Effects effects;
      bool over = false;
      {
        MutexLock lock(&mutex_);
        over = Tick(&effects);
        wake = PlanWake();
      }
      Carry(std::move(effects));
      if (over) break;
    }
    void* tag = nullptr;
    bool ok = false;
    if (queue_.AsyncNext(&tag, &ok, absl::ToChronoTime(wake)) !=
        grpc::CompletionQueue::GOT_EVENT) {
      continue;
    }
    Effects effects;
    {
      MutexLock lock(&mutex_);
      OnEvent(static_cast<Op>(reinterpret_cast<intptr_t>(tag)), ok, &effects);
    }
    Carry(std::move(effects));
  }
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

bool GrpcExpertClient::Tick(Effects* effects) {
  const absl::Time now = absl::Now();
  ExpireCalls(now, effects);
  if (stopping_) {
    if (state_ == State::kIdle) return !waking_;
    EndStream(absl::UnavailableError("shutting down"), effects);
    return false;
  }
  if (state_ == State::kIdle && now >= next_attempt_) StartStream();
  if (state_ == State::kHandshaking && now >= stream_->handshake_deadline) {
    EndStream(absl::UnavailableError(absl::StrCat(
                  stream_->reached ? "connected, but no welcome within "
                                   : "no connection within ",
                  absl::FormatDuration(options_.handshake_timeout))),
              effects);
  }
  return false;
}

void GrpcExpertClient::OnEvent(Op op, bool ok, Effects* effects) {
  switch (op) {
    case Op::kWake:
      waking_ = false;
      return;
    case Op::kFinish:
      stream_->finishing = false;
      OnFinished();
      return;
    case Op::kStart:
      stream_->starting = false;
      stream_->reached = ok;
      if (ok && state_ == State::kHandshaking) {
        Write(HelloToProto(expected_, options_.instance_id));
        stream_->reading = true;
        stream_->rpc->Read(&stream_->incoming, Tag(Op::kRead));
      }
      break;
    case Op::kWrite:
      stream_->writing = false;
      if (ok) WriteNext(absl::Now());
      break;
    case Op::kRead:
      stream_->reading = false;
      if (ok) OnMessage(effects);
      break;
  }
  if (!ok) EndStream(absl::OkStatus(), effects);
  if (state_ == State::kEnding) FinishIfQuiet();
}

// ---------------------------------------------------------------------------
// The stream.

void GrpcExpertClient::StartStream() {
  state_ = State::kHandshaking;
  stream_ = std::make_unique<Stream>();
  stream_->waits_for_ready = next_waits_for_ready_;
  stream_->handshake_deadline = absl::Now() + options_.handshake_timeout;
  stream_->context.set_wait_for_ready(next_waits_for_ready_);
  stream_->rpc = stub_.PrepareCall(&stream_->context, kConnectMethod, &queue_);
  stream_->rpc->StartCall(Tag(Op::kStart));
}

void GrpcExpertClient::OnMessage(Effects* effects) {
  received_bytes_->Increment(static_cast<double>(stream_->incoming.Length()));
  if (state_ == State::kEnding) return;
  v1::ExpertReply reply;
  absl::Status status =
      rpc::FromByteBuffer(&stream_->incoming, &reply)
          ? OnReply(reply, effects)
          : absl::InvalidArgumentError("not an ExpertReply message");
  stream_->incoming.Clear();
  if (!status.ok()) {
    EndStream(absl::Status(status.code(),
                           absl::StrCat("the expert worker breaks the "
                                        "protocol or has another model: ",
                                        status.message())),
              effects);
    return;
  }
  stream_->reading = true;
  stream_->rpc->Read(&stream_->incoming, Tag(Op::kRead));
}

absl::Status GrpcExpertClient::OnReply(const v1::ExpertReply& reply,
                                       Effects* effects) {
  const bool welcomed = state_ == State::kReady;
  switch (reply.kind_case()) {
    case v1::ExpertReply::kWelcome:
      if (welcomed) return absl::InvalidArgumentError("a second welcome");
      return OnWelcome(reply.welcome(), effects);
    case v1::ExpertReply::kResult:
      if (!welcomed) return absl::InvalidArgumentError("result before welcome");
      return OnResult(reply.result(), effects);
    case v1::ExpertReply::kHoldings: {
      if (!welcomed) {
        return absl::InvalidArgumentError("holdings before welcome");
      }
      absl::StatusOr<model::ExpertSet> holdings =
          HoldingsFromProto(reply.holdings().holdings(), expected_);
      if (!holdings.ok()) return holdings.status();
      SetHoldings(*std::move(holdings), effects);
      return absl::OkStatus();
    }
    case v1::ExpertReply::KIND_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("a message of no known kind");
}

absl::Status GrpcExpertClient::OnWelcome(const v1::Welcome& welcome,
                                         Effects* effects) {
  absl::StatusOr<WorkerTerms> terms = TermsFromProto(welcome, expected_);
  if (!terms.ok()) return terms.status();
  state_ = State::kReady;
  stream_->ready_since = absl::Now();
  health_ = absl::OkStatus();
  connected_->Set(1);
  if (was_connected_) reconnects_->Increment();
  was_connected_ = true;
  LogInfo(absl::StrCat("expert worker ", options_.address, " (instance ",
                       terms->instance_id, ") holds ", terms->holdings.size(),
                       " experts"));
  terms_.instance_id = std::move(terms->instance_id);
  terms_.max_rows_in_flight = terms->max_rows_in_flight;
  SetHoldings(std::move(terms->holdings), effects);
  return absl::OkStatus();
}

absl::Status GrpcExpertClient::OnResult(const v1::Result& result,
                                        Effects* effects) {
  const auto found = sent_.find(result.sequence());
  if (found == sent_.end()) {
    unmatched_replies_->Increment();
    return absl::OkStatus();
  }
  const absl::Status failure = FailureFromProto(result);
  absl::StatusOr<ExpertReply> reply =
      failure.ok() ? OutputsFromProto(result, found->second.num_outputs,
                                      options_.hidden_size)
                   : failure;
  // Wrong outputs end the stream, and the call, still in flight, fails with it.
  if (failure.ok() && !reply.ok()) return reply.status();
  Sent sent = std::move(found->second);
  sent_.erase(found);
  sent_rows_ -= sent.num_rows;
  const absl::Time now = absl::Now();
  if (!sent.done) {
    unmatched_replies_->Increment();
  } else if (!reply.ok()) {
    FailCall(std::move(sent.done), failure, effects);
  } else {
    const WorkerTimes times = TimesFromProto(result);
    metrics_.CallDone(sent.num_rows, now - sent.start, times.queue,
                      times.compute);
    reply->compute_time = times.compute;
    effects->finished.emplace_back(std::move(sent.done), std::move(reply));
  }
  WriteNext(now);
  return absl::OkStatus();
}

void GrpcExpertClient::SetHoldings(model::ExpertSet holdings,
                                   Effects* effects) {
  terms_.holdings = std::move(holdings);
  effects->listener = listener_;
}

void GrpcExpertClient::EndStream(absl::Status ended_here, Effects* effects) {
  if (state_ == State::kEnding || state_ == State::kIdle) return;
  if (state_ == State::kReady) {
    connected_->Set(0);
    health_ = ended_here.ok() ? absl::UnavailableError("the stream was lost")
                              : ended_here;
    SetHoldings(model::ExpertSet(), effects);
  }
  state_ = State::kEnding;
  const absl::Status lost = absl::UnavailableError(
      absl::StrCat("lost while the call was in flight: ", health_.message()));
  for (auto& [sequence, sent] : sent_) {
    if (sent.done) FailCall(std::move(sent.done), lost, effects);
  }
  for (Waiting& waiting : waiting_) {
    FailCall(std::move(waiting.done), lost, effects);
  }
  sent_.clear();
  waiting_.clear();
  sent_rows_ = waiting_rows_ = 0;
  if (!ended_here.ok()) stream_->context.TryCancel();
  stream_->ended_here = std::move(ended_here);
  FinishIfQuiet();
}

void GrpcExpertClient::FinishIfQuiet() {
  if (stream_->starting || stream_->reading || stream_->writing ||
      stream_->finishing) {
    return;
  }
  stream_->finishing = true;
  stream_->rpc->Finish(&stream_->status, Tag(Op::kFinish));
}

void GrpcExpertClient::OnFinished() {
  absl::Status why = stream_->ended_here;
  if (why.ok()) why = rpc::FromGrpcStatus(stream_->status);
  if (why.ok()) why = absl::UnavailableError("the worker ended the stream");
  const bool refused = why.code() == absl::StatusCode::kFailedPrecondition ||
                       why.code() == absl::StatusCode::kInvalidArgument ||
                       why.code() == absl::StatusCode::kUnimplemented;
  const bool lost = stream_->ready_since != absl::InfiniteFuture();
  if (!stopping_ && (lost || why != health_)) {
    LogWarning(absl::StrCat("expert worker ", options_.address,
                            lost ? " lost: " : ": ", why.ToString()));
  }
  health_ = std::move(why);
  PlanNextAttempt(refused);
  stream_.reset();
  state_ = State::kIdle;
}

// The first attempt fails at once while nobody listens, and so brings the
// reason for health(); the one after it waits in the channel, which connects by
// itself as soon as somebody does.
void GrpcExpertClient::PlanNextAttempt(bool refused) {
  const absl::Time now = absl::Now();
  next_waits_for_ready_ = false;
  if (refused) {
    next_attempt_ = now + options_.refused_backoff;
    return;
  }
  if (now - kStableAfter >= stream_->ready_since) {
    backoff_ = options_.min_backoff;
    next_attempt_ = now;
    return;
  }
  if (!stream_->reached && !stream_->waits_for_ready) {
    next_waits_for_ready_ = true;
    next_attempt_ = now;
    return;
  }
  next_attempt_ = now + backoff_;
  backoff_ = std::min(backoff_ * 2, options_.max_backoff);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertClient>> NewGrpcExpertClient(
    GrpcExpertClientOptions options) {
  if (options.address.empty()) {
    return absl::InvalidArgumentError("an expert worker's address is empty");
  }
  if (options.num_layers < 1 || options.num_experts < 1 ||
      options.hidden_size < 1 || options.max_queued_rows < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "sizes of an expert client must be at least 1: layers ",
        options.num_layers, ", experts ", options.num_experts, ", hidden ",
        options.hidden_size, ", queued rows ", options.max_queued_rows));
  }
  SY_CHECK(options.registry != nullptr);
  return std::make_unique<GrpcExpertClient>(std::move(options));
}

}  // namespace switchyard::attention_worker

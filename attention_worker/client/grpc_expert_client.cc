#include "attention_worker/client/grpc_expert_client.h"

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "attention_worker/client/clock_offset.h"
#include "attention_worker/client/expert_calls.h"
#include "attention_worker/client/expert_codec.h"
#include "attention_worker/client/expert_io.h"
#include "attention_worker/client/expert_stream.h"
#include "attention_worker/client/reconnect_backoff.h"
#include "attention_worker/moe/expert_client_metrics.h"
#include "base/buffer_pool.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mutex.h"
#include "fabric/wire/expert_terms.h"
#include "rpc/channel.h"
#include "rpc/message_buffer.h"

namespace switchyard::attention_worker {
namespace {

// Activations on their way: a prompt's, 2,048 rows of H = 2048 as floats.
constexpr size_t kMaxIdleBytes = size_t{32} << 20;

class GrpcExpertClient final : public ExpertClient, private ExpertIoHandler {
 public:
  explicit GrpcExpertClient(GrpcExpertClientOptions options);
  ~GrpcExpertClient() override;

  std::string name() const override { return options_.address; }
  model::ExpertSet holdings() const override ABSL_LOCKS_EXCLUDED(mutex_);
  std::string instance_id() const override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status health() const override ABSL_LOCKS_EXCLUDED(mutex_);
  int64_t max_call_rows() const override ABSL_LOCKS_EXCLUDED(mutex_);
  void SetListener(std::function<void()> listener) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Forward(const ExpertCall& call, Done done) override
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // kIdle -> kHandshaking -> kReady -> kEnding -> kIdle, or from kHandshaking
  // straight to kEnding.
  enum class State {
    kIdle,         // no stream; the next attempt is backoff_'s
    kHandshaking,  // a stream is being made, or waits for `welcome`
    kReady,        // rows may be sent
    kEnding,       // failed; its operations come back
  };

  // What to do once the mutex is free: callbacks may call back.
  struct Effects {
    std::vector<std::pair<Done, absl::StatusOr<ExpertReply>>> finished;
    std::function<void()> listener;
  };
  static void Carry(Effects effects);

  // ExpertIoHandler.
  void OnEvent(int op, bool ok) override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Time OnTimer(absl::Time now) override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Time NextTimer() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void StartStream() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnMessage(Effects* effects) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status OnReply(DecodedReply reply, Effects* effects)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status OnWelcome(const v1::Welcome& welcome, Effects* effects)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status OnResult(const v1::Result& result, BytePieces outputs,
                        Effects* effects) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ObserveTimes(const ExpertCalls::Sent& sent, const WorkerTimes& times)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // `why` OK: the other side did.
  void EndStream(absl::Status why, Effects* effects)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnFinished() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Which versions the next hello offers, after a stream that ended so. True:
  // the oldest alone, since this worker refused to hear of others.
  bool GreetOtherwise(const absl::Status& end)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Status CheckCall(const ExpertCall& call, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Write(const grpc::ByteBuffer& message)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FailCalls(std::vector<ExpertCalls::Failure> failures, Effects* effects)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetHoldings(model::ExpertSet holdings, Effects* effects)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const GrpcExpertClientOptions options_;
  const ExpectedWorker expected_;
  const v1::ActivationFormat activation_format_;
  ExpertClientMetrics metrics_;
  metrics::Counter* const sent_bytes_;
  metrics::Counter* const received_bytes_;
  metrics::Counter* const unmatched_replies_;
  metrics::Counter* const reconnects_;
  metrics::Gauge* const connected_;

  const std::shared_ptr<ExpertIo> io_;
  const std::shared_ptr<BufferPool> buffers_;
  grpc::GenericStub stub_;
  ExpertStream::Tags tags_;

  mutable Mutex mutex_;
  CondVar idle_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kIdle;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status health_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> listener_ ABSL_GUARDED_BY(mutex_);
  fabric::ProtocolRange versions_ ABSL_GUARDED_BY(mutex_);  // to be offered
  WorkerTerms terms_ ABSL_GUARDED_BY(mutex_);               // while kReady
  ExpertCalls calls_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_sequence_ ABSL_GUARDED_BY(mutex_) = 1;
  ClockOffset clock_offset_ ABSL_GUARDED_BY(mutex_);
  ReconnectBackoff backoff_ ABSL_GUARDED_BY(mutex_);
  bool was_connected_ ABSL_GUARDED_BY(mutex_) = false;

  // Of the stream; null while kIdle.
  std::unique_ptr<ExpertStream> stream_ ABSL_GUARDED_BY(mutex_);
  absl::Time handshake_deadline_ ABSL_GUARDED_BY(mutex_);
  absl::Time ready_since_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  // Why this side ended it; OK: the other side did.
  absl::Status ended_here_ ABSL_GUARDED_BY(mutex_);
};

GrpcExpertClient::GrpcExpertClient(GrpcExpertClientOptions options)
    : options_(std::move(options)),
      expected_{.model_fingerprint = options_.model_fingerprint,
                .num_layers = options_.num_layers,
                .num_experts = options_.num_experts,
                .hidden_size = options_.hidden_size,
                .weight_format = fabric::WeightFormatOf(options_.expert_dtype)},
      activation_format_(fabric::ActivationFormatOf(expected_.weight_format)),
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
      io_(options_.io != nullptr
              ? options_.io
              : std::make_shared<ExpertIo>(absl::ZeroDuration())),
      buffers_(BufferPool::Create(kMaxIdleBytes)),
      stub_(rpc::NewChannel(options_.address)),
      tags_{{this, ExpertStream::kStart},
            {this, ExpertStream::kRead},
            {this, ExpertStream::kWrite},
            {this, ExpertStream::kFinish}},
      health_(absl::UnavailableError("not connected yet")),
      calls_(options_.max_queued_rows),
      backoff_({.min = options_.min_backoff,
                .max = options_.max_backoff,
                .refused = options_.refused_backoff}) {
  connected_->Set(0);
  io_->Add(this);
}

GrpcExpertClient::~GrpcExpertClient() {
  Effects effects;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    EndStream(absl::UnavailableError("shutting down"), &effects);
  }
  Carry(std::move(effects));
  {
    MutexLock lock(&mutex_);
    while (state_ != State::kIdle) {
      // Cut streams end at once: a question of when the queue is looked at.
      if (!idle_.WaitUntil(&mutex_, absl::Now() + absl::Seconds(10))) {
        LogWarning(absl::StrCat("the stream to expert worker ",
                                options_.address, " has not ended yet"));
      }
    }
  }
  io_->Remove(this);
}

model::ExpertSet GrpcExpertClient::holdings() const {
  MutexLock lock(&mutex_);
  return terms_.holdings;
}

std::string GrpcExpertClient::instance_id() const {
  MutexLock lock(&mutex_);
  return terms_.instance_id;
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
  for (auto& call : effects.finished) {
    std::move(call.first)(std::move(call.second));
  }
  if (effects.listener) effects.listener();
}

// ---------------------------------------------------------------------------
// Calls.

absl::Status GrpcExpertClient::CheckCall(const ExpertCall& call,
                                         absl::Time now) const {
  if (state_ != State::kReady || stopping_) {
    return absl::UnavailableError(stopping_ ? "shutting down"
                                            : std::string(health_.message()));
  }
  if (now >= call.deadline) {
    return absl::DeadlineExceededError("the deadline came before sending");
  }
  return calls_.CheckRoom(call.num_rows, terms_.max_rows_in_flight);
}

void GrpcExpertClient::Forward(const ExpertCall& call, Done done) {
  SY_CHECK(call.hidden_size == options_.hidden_size &&
           call.num_rows == static_cast<int64_t>(call.source_rows.size()));
  const absl::Time start = absl::Now();
  Effects effects;
  {
    MutexLock lock(&mutex_);
    absl::Status status = CheckCall(call, start);
    if (!status.ok()) {
      metrics_.CallFailed(status.code());
      effects.finished.emplace_back(std::move(done), std::move(status));
    } else {
      calls_.Add({.encoded = EncodeCall(call, activation_format_,
                                        next_sequence_++, buffers_.get()),
                  .deadline = call.deadline,
                  .start = start,
                  .num_rows = call.num_rows,
                  .num_outputs = call.num_outputs(),
                  .done = std::move(done)});
      // The writing starts here, on the caller's thread: handing it to another
      // one would cost a wake-up in every layer.
      WriteNext();
    }
  }
  if (effects.finished.empty()) {
    io_->ScheduleTimer(call.deadline);
  } else {
    Carry(std::move(effects));
  }
}

void GrpcExpertClient::WriteNext() {
  if (state_ != State::kReady || stream_->writing()) return;
  const absl::Time now = absl::Now();
  absl::optional<ExpertCalls::Outgoing> next =
      calls_.NextToSend(terms_.max_rows_in_flight, now);
  if (!next.has_value()) return;
  const grpc::Slice slices[] = {
      grpc::Slice(BytesBeforeActivations(&next->encoded, next->deadline, now)),
      rpc::ToSlice(std::move(next->encoded.activations))};
  Write(grpc::ByteBuffer(slices, 2));
  metrics_.CallSent(absl::Now() - next->start);
}

void GrpcExpertClient::Write(const grpc::ByteBuffer& message) {
  sent_bytes_->Increment(static_cast<double>(message.Length()));
  stream_->Write(message);
}

void GrpcExpertClient::FailCalls(std::vector<ExpertCalls::Failure> failures,
                                 Effects* effects) {
  for (ExpertCalls::Failure& failure : failures) {
    metrics_.CallFailed(failure.status.code());
    effects->finished.emplace_back(std::move(failure.done),
                                   std::move(failure.status));
  }
}

// ---------------------------------------------------------------------------
// Events and timers.

absl::Time GrpcExpertClient::OnTimer(absl::Time now) {
  Effects effects;
  absl::Time next;
  {
    MutexLock lock(&mutex_);
    FailCalls(calls_.Expire(now), &effects);
    if (state_ == State::kIdle && !stopping_ &&
        now >= backoff_.next_attempt()) {
      StartStream();
    }
    if (state_ == State::kHandshaking && now >= handshake_deadline_) {
      EndStream(absl::UnavailableError(absl::StrCat(
                    stream_->reached() ? "connected, but no welcome within "
                                       : "no connection within ",
                    absl::FormatDuration(options_.handshake_timeout))),
                &effects);
    }
    next = NextTimer();
  }
  Carry(std::move(effects));
  return next;
}

absl::Time GrpcExpertClient::NextTimer() const {
  absl::Time next = calls_.next_deadline();
  if (state_ == State::kIdle && !stopping_) {
    next = std::min(next, backoff_.next_attempt());
  }
  if (state_ == State::kHandshaking) next = std::min(next, handshake_deadline_);
  return next;
}

void GrpcExpertClient::OnEvent(int op, bool ok) {
  Effects effects;
  {
    MutexLock lock(&mutex_);
    const bool ending = state_ == State::kEnding;
    stream_->CameBack(static_cast<ExpertStream::Op>(op), ok);
    switch (op) {
      case ExpertStream::kStart:
        if (ok && !ending) {
          Write(rpc::ToByteBuffer(
              HelloToProto(expected_, options_.instance_id, versions_)));
          stream_->Read();
        }
        break;
      case ExpertStream::kWrite:
        if (ok) WriteNext();
        break;
      case ExpertStream::kRead:
        if (ok && !ending) OnMessage(&effects);
        break;
      case ExpertStream::kFinish:
        OnFinished();
        break;
    }
    if (!ok && op != ExpertStream::kFinish) {
      EndStream(absl::OkStatus(), &effects);
    }
  }
  Carry(std::move(effects));
}

// ---------------------------------------------------------------------------
// The stream.

void GrpcExpertClient::StartStream() {
  state_ = State::kHandshaking;
  handshake_deadline_ = absl::Now() + options_.handshake_timeout;
  ready_since_ = absl::InfiniteFuture();
  ended_here_ = absl::OkStatus();
  stream_ = std::make_unique<ExpertStream>(&stub_, io_->queue(), &tags_,
                                           backoff_.waits_for_ready());
}

void GrpcExpertClient::OnMessage(Effects* effects) {
  received_bytes_->Increment(
      static_cast<double>(stream_->received()->Length()));
  absl::StatusOr<DecodedReply> reply =
      DecodeReply(rpc::PiecesOf(*stream_->received()));
  stream_->received()->Clear();
  const absl::Status status =
      reply.ok() ? OnReply(*std::move(reply), effects) : reply.status();
  if (!status.ok()) {
    EndStream(absl::Status(status.code(),
                           absl::StrCat("the expert worker breaks the "
                                        "protocol or has another model: ",
                                        status.message())),
              effects);
    return;
  }
  stream_->Read();
}

absl::Status GrpcExpertClient::OnReply(DecodedReply reply, Effects* effects) {
  const bool welcomed = state_ == State::kReady;
  const v1::ExpertReply& message = reply.message;
  switch (message.kind_case()) {
    case v1::ExpertReply::kWelcome:
      if (welcomed) return absl::InvalidArgumentError("a second welcome");
      return OnWelcome(message.welcome(), effects);
    case v1::ExpertReply::kResult:
      if (!welcomed) return absl::InvalidArgumentError("result before welcome");
      return OnResult(message.result(), std::move(reply.outputs), effects);
    case v1::ExpertReply::kHoldings: {
      if (!welcomed) {
        return absl::InvalidArgumentError("holdings before welcome");
      }
      absl::StatusOr<model::ExpertSet> holdings =
          HoldingsFromProto(message.holdings().holdings(), expected_);
      if (!holdings.ok()) return holdings.status();
      SetHoldings(*std::move(holdings), effects);
      return absl::OkStatus();
    }
    case v1::ExpertReply::kHoldingsChange: {
      if (!welcomed ||
          terms_.protocol_version < fabric::kHoldingsChangeVersion) {
        return absl::InvalidArgumentError(
            "a change of holdings where there can be none");
      }
      model::ExpertSet holdings = terms_.holdings;
      const absl::Status changed =
          ChangeHoldings(message.holdings_change(), &holdings);
      if (!changed.ok()) return changed;
      SetHoldings(std::move(holdings), effects);
      return absl::OkStatus();
    }
    case v1::ExpertReply::KIND_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("a message of no known kind");
}

absl::Status GrpcExpertClient::OnWelcome(const v1::Welcome& welcome,
                                         Effects* effects) {
  absl::StatusOr<WorkerTerms> terms =
      TermsFromProto(welcome, expected_, versions_);
  if (!terms.ok()) return terms.status();
  state_ = State::kReady;
  ready_since_ = absl::Now();
  health_ = absl::OkStatus();
  connected_->Set(1);
  if (was_connected_) reconnects_->Increment();
  was_connected_ = true;
  // Another process may be on another machine.
  clock_offset_ = ClockOffset();
  LogInfo(absl::StrCat("expert worker ", options_.address, " (instance ",
                       terms->instance_id, ", protocol version ",
                       terms->protocol_version, ") holds ",
                       terms->holdings.size(), " experts"));
  terms_.protocol_version = terms->protocol_version;
  terms_.instance_id = std::move(terms->instance_id);
  terms_.max_rows_in_flight = terms->max_rows_in_flight;
  SetHoldings(std::move(terms->holdings), effects);
  return absl::OkStatus();
}

absl::Status GrpcExpertClient::OnResult(const v1::Result& result,
                                        BytePieces outputs, Effects* effects) {
  const ExpertCalls::Sent* const found = calls_.Find(result.sequence());
  if (found == nullptr) {
    unmatched_replies_->Increment();
    return absl::OkStatus();
  }
  const absl::Status failure = FailureFromProto(result);
  absl::StatusOr<ExpertReply> reply =
      failure.ok() ? OutputsFromBytes(std::move(outputs), found->num_outputs,
                                      options_.hidden_size)
                   : failure;
  // Wrong outputs end the stream, and the call, still in flight, fails with it.
  if (failure.ok() && !reply.ok()) return reply.status();
  ExpertCalls::Sent sent = calls_.Take(result.sequence());
  if (!sent.done) {
    unmatched_replies_->Increment();
  } else if (!reply.ok()) {
    metrics_.CallFailed(failure.code());
    effects->finished.emplace_back(std::move(sent.done), failure);
  } else {
    const WorkerTimes times = TimesFromProto(result);
    ObserveTimes(sent, times);
    reply->set_compute_time(times.compute);
    effects->finished.emplace_back(std::move(sent.done), std::move(reply));
  }
  WriteNext();
  return absl::OkStatus();
}

void GrpcExpertClient::ObserveTimes(const ExpertCalls::Sent& sent,
                                    const WorkerTimes& times) {
  const absl::Time now = absl::Now();
  const absl::Duration total =
      std::max(now - sent.written, absl::ZeroDuration());
  const absl::Duration compute = std::min(times.compute, total);
  const absl::Duration queue = std::min(times.queue, total - compute);
  const ClockOffset::Wire wire =
      clock_offset_.Observe(sent.written, times.received, queue + compute, now);
  metrics_.CallDone(sent.num_rows, {.wire_out = wire.out,
                                    .queue = queue,
                                    .compute = compute,
                                    .wire_back = wire.back});
  if (options_.traffic == nullptr) return;
  options_.traffic->Add(options_.address, {.calls = 1,
                                           .rows = sent.num_rows,
                                           .queue = queue,
                                           .compute = compute,
                                           .wire = wire.out + wire.back});
}

void GrpcExpertClient::SetHoldings(model::ExpertSet holdings,
                                   Effects* effects) {
  terms_.holdings = std::move(holdings);
  effects->listener = listener_;
}

void GrpcExpertClient::EndStream(absl::Status why, Effects* effects) {
  if (state_ == State::kEnding || state_ == State::kIdle) return;
  if (state_ == State::kReady) {
    connected_->Set(0);
    health_ = why.ok() ? absl::UnavailableError("the stream was lost") : why;
    SetHoldings(model::ExpertSet(), effects);
  }
  state_ = State::kEnding;
  FailCalls(calls_.FailAll(absl::UnavailableError(absl::StrCat(
                "lost while the call was in flight: ", health_.message()))),
            effects);
  ended_here_ = std::move(why);
  stream_->End(/*cut=*/!ended_here_.ok());
}

bool GrpcExpertClient::GreetOtherwise(const absl::Status& end) {
  const bool was_newest = versions_.newest == fabric::kExpertProtocol.newest;
  // Whoever is there next time may be another build.
  versions_ = fabric::kExpertProtocol;
  if (!was_newest || end.code() != absl::StatusCode::kFailedPrecondition ||
      !absl::StrContains(end.message(), "protocol version")) {
    return false;
  }
  versions_.newest = versions_.oldest;
  return true;
}

void GrpcExpertClient::OnFinished() {
  absl::Status why = ended_here_.ok() ? stream_->status() : ended_here_;
  if (why.ok()) why = absl::UnavailableError("the worker ended the stream");
  const bool refused = why.code() == absl::StatusCode::kFailedPrecondition ||
                       why.code() == absl::StatusCode::kInvalidArgument ||
                       why.code() == absl::StatusCode::kUnimplemented;
  const bool lost = ready_since_ != absl::InfiniteFuture();
  const bool another_version = GreetOtherwise(why);
  if (!stopping_ && !another_version && (lost || why != health_)) {
    LogWarning(absl::StrCat("expert worker ", options_.address,
                            lost ? " lost: " : ": ", why.ToString()));
  }
  health_ = std::move(why);
  backoff_.AttemptEnded(another_version      ? AttemptEnd::kLost
                        : refused            ? AttemptEnd::kRefused
                        : stream_->reached() ? AttemptEnd::kLost
                                             : AttemptEnd::kUnreachable,
                        ready_since_, absl::Now());
  stream_.reset();
  state_ = State::kIdle;
  // After this and the mutex the object may be gone.
  if (stopping_) {
    idle_.SignalAll();
  } else {
    io_->ScheduleTimer(backoff_.next_attempt());
  }
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

#include "expert_worker/service/expert_connection.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/log.h"
#include "proto/expert.pb.h"
#include "rpc/message_buffer.h"
#include "rpc/status_conversion.h"

namespace switchyard::expert_worker {

ExpertConnection::ExpertConnection(const ConnectionOptions& options,
                                   GetServing get_serving)
    : options_(options),
      get_serving_(std::move(get_serving)),
      abandoned_(std::make_shared<std::atomic<bool>>(false)),
      rpc_(std::make_unique<Rpc>()) {}

grpc::ServerContext* ExpertConnection::context() {
  MutexLock lock(&mutex_);
  return &rpc_->context;
}

ExpertConnection::Stream* ExpertConnection::stream() {
  MutexLock lock(&mutex_);
  return &rpc_->stream;
}

bool ExpertConnection::OnEvent(Op op, bool ok) {
  MutexLock lock(&mutex_);
  switch (op) {
    case Op::kCall:
      if (!ok) {  // the server shuts down
        state_ = State::kOver;
        rpc_.reset();
        return true;
      }
      state_ = State::kWaitingForHello;
      peer_ = rpc_->context.peer();
      hello_deadline_ = absl::Now() + options_.hello_timeout;
      Read();
      return false;
    case Op::kRead:
      reading_ = false;
      if (ok) {
        OnMessage();
      } else {
        // The client is gone, or has said goodbye: nobody waits for answers.
        End(absl::OkStatus());
      }
      break;
    case Op::kWrite:
      writing_ = false;
      unsent_bytes_ -= writing_bytes_;
      if (!ok) End(absl::CancelledError("the client is gone"));
      WriteNext();
      EndIfDrained();
      if (state_ == State::kServing && !reading_) Read();
      break;
    case Op::kFinish:
      finished_ = true;
      break;
  }
  FinishIfQuiet();
  if (!finished_ || reading_ || writing_) return false;
  state_ = State::kOver;
  rpc_.reset();
  return true;
}

void ExpertConnection::Tick(absl::Time now) {
  MutexLock lock(&mutex_);
  if (state_ == State::kWaitingForHello && now >= hello_deadline_) {
    Refuse(
        Refusal::kMalformed,
        absl::DeadlineExceededError(absl::StrCat(
            "no hello within ", absl::FormatDuration(options_.hello_timeout))));
  }
  if (writing_ && !cancelled_ &&
      now - writing_since_ >= options_.stalled_write_timeout) {
    cancelled_ = true;
    LogWarning(absl::StrCat(
        "giving up attention worker at ", peer_, ": it has taken nothing for ",
        absl::FormatDuration(options_.stalled_write_timeout)));
    rpc_->context.TryCancel();  // the write comes back as failed
  }
  EndIfDrained();
}

void ExpertConnection::SetHoldings(const model::ExpertSet& holdings) {
  MutexLock lock(&mutex_);
  if (state_ == State::kServing && !draining_) TellHoldings(holdings);
}

void ExpertConnection::Drain() {
  MutexLock lock(&mutex_);
  if (draining_) return;
  draining_ = true;
  last_request_ = absl::Now();
  if (state_ == State::kWaitingForHello) {
    Refuse(Refusal::kNotReady,
           absl::UnavailableError("this worker is draining"));
    return;
  }
  if (state_ != State::kServing) return;
  TellHoldings(model::ExpertSet(serving_->identity.num_layers,
                                serving_->identity.num_experts));
}

// ---------------------------------------------------------------------------
// Messages in.

void ExpertConnection::Read() {
  // A client that does not take its replies is not read from either: so it
  // cannot make this process keep more than this and its rows in flight.
  if (unsent_bytes_ > options_.max_unsent_bytes) return;
  reading_ = true;
  rpc_->stream.Read(&rpc_->incoming, &read_tag_);
}

void ExpertConnection::OnMessage() {
  options_.metrics->received_bytes->Increment(
      static_cast<double>(rpc_->incoming.Length()));
  if (state_ != State::kWaitingForHello && state_ != State::kServing) return;
  const absl::Time received = absl::Now();
  const absl::StatusOr<DecodedRequest> request =
      DecodeRequest(rpc::PiecesOf(rpc_->incoming));
  rpc_->incoming.Clear();
  const bool greeted = state_ == State::kServing;
  if (request.ok() && request->message.has_hello() && !greeted) {
    OnHello(request->message.hello());
  } else if (request.ok() && request->message.has_compute() && greeted) {
    OnCompute(request->message.compute(), request->activations, received);
  } else {
    const absl::Status broken =
        !request.ok() ? request.status()
                      : absl::InvalidArgumentError(
                            request->message.has_hello() ? "a second hello"
                            : greeted ? "a message of no known kind"
                                      : "the first message is not a hello");
    if (greeted) {
      LogWarning(
          absl::StrCat("attention worker at ", peer_, ": ", broken.message()));
      End(broken);
    } else {
      Refuse(Refusal::kMalformed, broken);
    }
  }
  if (state_ == State::kServing) Read();
}

void ExpertConnection::OnHello(const v1::Hello& hello) {
  absl::StatusOr<std::shared_ptr<const ServingState>> serving = get_serving_();
  if (!serving.ok() || draining_) {
    Refuse(Refusal::kNotReady,
           serving.ok() ? absl::UnavailableError("this worker is draining")
                        : serving.status());
    return;
  }
  HelloVerdict verdict = CheckHello(hello, (*serving)->identity);
  if (verdict.refusal != Refusal::kNone) {
    Refuse(verdict.refusal, std::move(verdict.status));
    return;
  }
  serving_ = *std::move(serving);
  state_ = State::kServing;
  options_.metrics->connected_streams->Add(1);
  LogInfo(absl::StrCat("attention worker ", hello.instance_id(),
                       " connected from ", peer_));
  protocol_version_ = verdict.protocol_version;
  told_holdings_ = serving_->holdings;
  Send(WelcomeToProto(serving_->identity, told_holdings_, protocol_version_));
}

void ExpertConnection::OnCompute(const v1::Compute& compute,
                                 const BytePieces& activations,
                                 absl::Time received) {
  const uint64_t sequence = compute.sequence();
  if (in_flight_.contains(sequence)) {
    End(absl::InvalidArgumentError(
        absl::StrCat("sequence ", sequence, " is in flight already")));
    return;
  }
  absl::StatusOr<ComputeRequest> request = ComputeFromProto(
      compute, activations, serving_->identity, options_.buffers.get());
  const absl::Status status =
      request.ok() ? Accept(*std::move(request), received) : request.status();
  if (status.ok()) return;
  options_.metrics->RequestAnswered(status.code());
  Send(FailureToProto(sequence, status,
                      {.received = received, .queue = {}, .compute = {}}));
}

absl::Status ExpertConnection::Accept(ComputeRequest request,
                                      absl::Time received) {
  last_request_ = received;
  const uint64_t sequence = request.sequence;
  const int64_t num_rows = request.num_rows;
  if (num_rows > serving_->identity.max_rows_in_flight - rows_in_flight_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        rows_in_flight_, " of at most ", serving_->identity.max_rows_in_flight,
        " rows are in flight on this stream; no room for ", num_rows));
  }
  // Counted first: the outcome may come before Submit returns, and then waits
  // for the mutex.
  in_flight_.emplace(sequence, num_rows);
  rows_in_flight_ += num_rows;
  const absl::Status status = serving_->queue->Submit(
      {.request = std::move(request),
       .abandoned = abandoned_,
       .received = received,
       .done = [self = shared_from_this(), sequence](ComputeOutcome outcome) {
         self->OnOutcome(sequence, std::move(outcome));
       }});
  if (!status.ok()) {
    in_flight_.erase(sequence);
    rows_in_flight_ -= num_rows;
  }
  return status;
}

// ---------------------------------------------------------------------------
// Messages out.

void ExpertConnection::OnOutcome(uint64_t sequence, ComputeOutcome outcome) {
  options_.metrics->RequestAnswered(outcome.status.code());
  if (abandoned_->load()) return;
  grpc::ByteBuffer reply;
  if (outcome.status.ok()) {
    // The outputs go out from where they were computed.
    const grpc::Slice slices[] = {
        grpc::Slice(BytesBeforeOutputs(sequence, outcome.outputs.size(),
                                       outcome.times)),
        rpc::ToSlice(std::move(outcome.outputs))};
    reply = grpc::ByteBuffer(slices, 2);
  } else {
    reply = rpc::ToByteBuffer(
        FailureToProto(sequence, outcome.status, outcome.times));
  }
  MutexLock lock(&mutex_);
  if (state_ != State::kServing) return;
  const auto found = in_flight_.find(sequence);
  SY_CHECK(found != in_flight_.end());
  rows_in_flight_ -= found->second;
  in_flight_.erase(found);
  SendBytes(reply);
}

void ExpertConnection::TellHoldings(const model::ExpertSet& holdings) {
  // Who greeted just now may have been told already.
  if (holdings == told_holdings_) return;
  Send(HoldingsToProto(told_holdings_, holdings, protocol_version_));
  told_holdings_ = holdings;
}

void ExpertConnection::Send(const v1::ExpertReply& reply) {
  SendBytes(rpc::ToByteBuffer(reply));
}

void ExpertConnection::SendBytes(const grpc::ByteBuffer& message) {
  unsent_.push_back(message);
  unsent_bytes_ += static_cast<int64_t>(unsent_.back().Length());
  WriteNext();
}

void ExpertConnection::WriteNext() {
  if (writing_ || unsent_.empty()) return;
  writing_ = true;
  writing_since_ = absl::Now();
  writing_bytes_ = static_cast<int64_t>(unsent_.front().Length());
  options_.metrics->sent_bytes->Increment(static_cast<double>(writing_bytes_));
  rpc_->stream.Write(unsent_.front(), &write_tag_);
  unsent_.pop_front();
}

// ---------------------------------------------------------------------------
// The end.

void ExpertConnection::Refuse(Refusal refusal, absl::Status status) {
  options_.metrics->HandshakeRefused(refusal);
  if (refusal != Refusal::kNotReady) {
    LogWarning(
        absl::StrCat("refused a stream from ", peer_, ": ", status.ToString()));
  }
  End(std::move(status));
}

void ExpertConnection::EndIfDrained() {
  if (state_ == State::kServing && draining_ && in_flight_.empty() &&
      unsent_.empty() && !writing_ &&
      absl::Now() - last_request_ >= options_.drain_quiet_time) {
    End(absl::UnavailableError("this worker is draining"));
  }
}

void ExpertConnection::End(absl::Status status) {
  if (state_ == State::kFinishing || state_ == State::kOver) return;
  if (state_ == State::kServing) {
    options_.metrics->connected_streams->Add(-1);
    LogInfo(absl::StrCat("stream from ", peer_, " ended: ", status.ToString()));
  }
  state_ = State::kFinishing;
  end_ = std::move(status);
  abandoned_->store(true);
  for (const grpc::ByteBuffer& buffer : unsent_) {
    unsent_bytes_ -= static_cast<int64_t>(buffer.Length());
  }
  unsent_.clear();
  FinishIfQuiet();
}

void ExpertConnection::FinishIfQuiet() {
  if (state_ != State::kFinishing || writing_ || finish_sent_) return;
  finish_sent_ = true;
  rpc_->stream.Finish(rpc::ToGrpcStatus(end_), &finish_tag_);
}

}  // namespace switchyard::expert_worker

#include "router/client/session_client.h"

#include <chrono>
#include <set>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "grpcpp/grpcpp.h"
#include "proto/session.grpc.pb.h"
#include "rpc/address.h"
#include "rpc/channel.h"
#include "rpc/status_conversion.h"

namespace switchyard::router {
namespace {

// The calls of one client that are in progress.
class OpenCalls {
 public:
  void Add(grpc::ClientContext* call) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    calls_.insert(call);
    if (cancelled_) call->TryCancel();
  }
  void Remove(grpc::ClientContext* call) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    calls_.erase(call);
  }
  void CancelAll() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    cancelled_ = true;
    for (grpc::ClientContext* call : calls_) call->TryCancel();
  }

 private:
  Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<grpc::ClientContext*> calls_ ABSL_GUARDED_BY(mutex_);
};

// A call's context, known to its client while it lives.
class Call {
 public:
  Call(std::shared_ptr<OpenCalls> open, absl::Time deadline)
      : open_(std::move(open)) {
    if (deadline != absl::InfiniteFuture()) {
      context_.set_deadline(absl::ToChronoTime(deadline));
    }
    open_->Add(&context_);
  }
  ~Call() { open_->Remove(&context_); }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  grpc::ClientContext* context() { return &context_; }

 private:
  const std::shared_ptr<OpenCalls> open_;
  grpc::ClientContext context_;
};

absl::Status Named(const std::string& worker, const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const absl::Status converted = rpc::FromGrpcStatus(status);
  return absl::Status(converted.code(),
                      absl::StrCat("attention worker ", worker, ": ",
                                   std::string(converted.message())));
}

class GrpcUpload final : public StateUpload {
 public:
  GrpcUpload(v1::Session::Stub* stub, std::string worker,
             std::shared_ptr<OpenCalls> open, absl::Time deadline)
      : worker_(std::move(worker)),
        call_(std::move(open), deadline),
        writer_(stub->LoadState(call_.context(), &reply_)) {}
  ~GrpcUpload() override {
    if (finished_) return;
    call_.context()->TryCancel();
    (void)writer_->Finish();
  }

  bool Write(absl::string_view part) override {
    message_.set_data(part.data(), part.size());
    bytes_ += static_cast<int64_t>(part.size());
    return writer_->Write(message_);
  }

  absl::StatusOr<StateMoved> Finish() override {
    finished_ = true;
    writer_->WritesDone();
    SY_RETURN_IF_ERROR(Named(worker_, writer_->Finish()));
    return StateMoved{.num_tokens = static_cast<int64_t>(reply_.num_tokens()),
                      .bytes = bytes_,
                      .already_held = reply_.already_held()};
  }

 private:
  const std::string worker_;
  Call call_;
  v1::LoadStateReply reply_;
  v1::LoadStateRequest message_;
  const std::unique_ptr<grpc::ClientWriter<v1::LoadStateRequest>> writer_;
  int64_t bytes_ = 0;
  bool finished_ = false;
};

class GrpcSessionClient final : public SessionClient {
 public:
  explicit GrpcSessionClient(const std::string& address)
      : address_(address),
        stub_(v1::Session::NewStub(rpc::NewChannel(address))),
        open_(std::make_shared<OpenCalls>()) {}

  absl::StatusOr<StateMoved> Save(
      const StateQuery& query,
      absl::FunctionRef<absl::Status(absl::string_view)> take,
      absl::Time deadline) override {
    v1::SaveStateRequest request;
    for (const int32_t id : query.tokens) {
      request.add_token_ids(static_cast<uint32_t>(id));
    }
    request.set_cache_scope(query.cache_scope);
    request.set_model_fingerprint(query.model_fingerprint);
    request.set_hand_over_request_id(query.hand_over_request_id);
    Call call(open_, deadline);
    const auto reader = stub_->SaveState(call.context(), request);
    v1::SaveStateReply part;
    StateMoved moved;
    int64_t total = 0;
    while (reader->Read(&part)) {
      if (moved.bytes == 0) {
        moved.num_tokens = static_cast<int64_t>(part.num_tokens());
        total = static_cast<int64_t>(part.total_bytes());
      }
      moved.bytes += static_cast<int64_t>(part.data().size());
      const absl::Status taken =
          take(absl::string_view(part.data().data(), part.data().size()));
      if (taken.ok()) continue;
      call.context()->TryCancel();
      (void)reader->Finish();
      return taken;
    }
    SY_RETURN_IF_ERROR(Named(address_, reader->Finish()));
    if (moved.bytes != total || total == 0) {
      return absl::InternalError(absl::StrCat("attention worker ", address_,
                                              " sent ", moved.bytes,
                                              " bytes of a state of ", total));
    }
    return moved;
  }

  std::unique_ptr<StateUpload> Load(absl::Time deadline) override {
    return std::make_unique<GrpcUpload>(stub_.get(), address_, open_, deadline);
  }

  void CancelAll() override { open_->CancelAll(); }

 private:
  const std::string address_;
  const std::unique_ptr<v1::Session::Stub> stub_;
  const std::shared_ptr<OpenCalls> open_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<SessionClient>> SessionClient::Create(
    const std::string& address) {
  SY_RETURN_IF_ERROR(rpc::CheckAddress(address));
  return std::shared_ptr<SessionClient>(
      std::make_shared<GrpcSessionClient>(address));
}

absl::StatusOr<StateMoved> SessionClient::Move(const StateQuery& query,
                                               SessionClient* to,
                                               absl::Time deadline) {
  const std::unique_ptr<StateUpload> upload = to->Load(deadline);
  bool refused = false;
  const absl::StatusOr<StateMoved> saved = Save(
      query,
      [&](absl::string_view part) {
        refused = !upload->Write(part);
        return refused ? absl::CancelledError("the receiver wants no more")
                       : absl::OkStatus();
      },
      deadline);
  if (!saved.ok() && !refused) return saved.status();
  return upload->Finish();
}

}  // namespace switchyard::router

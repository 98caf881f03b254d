#include "attention_worker/service/session_service.h"

#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention_worker/service/generation_codec.h"
#include "attention_worker/service/session_streams.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {
namespace {

absl::Status TooMany(int max_transfers) {
  return absl::ResourceExhaustedError(
      absl::StrCat("this worker has ", max_transfers,
                   " states on their way already; try again"));
}

absl::StatusOr<SaveOrder> OrderFromProto(const v1::SaveStateRequest& request,
                                         const WorkerInfo& info) {
  if (!request.model_fingerprint().empty() &&
      request.model_fingerprint() != info.model_fingerprint) {
    return absl::FailedPreconditionError(
        absl::StrCat("a state of the model with the fingerprint ",
                     request.model_fingerprint(),
                     " is asked for; this "
                     "worker's is ",
                     info.model_fingerprint));
  }
  SaveOrder order;
  order.model = info.model_fingerprint;
  order.request_id = request.hand_over_request_id();
  if (request.token_ids().empty() == order.request_id.empty()) {
    return absl::InvalidArgumentError(
        "give token_ids or hand_over_request_id, one of them");
  }
  for (const uint32_t id : request.token_ids()) {
    if (id > static_cast<uint32_t>(std::numeric_limits<int32_t>::max())) {
      return absl::InvalidArgumentError(
          absl::StrCat("token_ids has ", id, ", above 2^31 - 1"));
    }
    order.prefix.tokens.push_back(static_cast<int32_t>(id));
  }
  SY_ASSIGN_OR_RETURN(order.prefix.scope,
                      ScopeFromProto(request.cache_scope()));
  return order;
}

}  // namespace

std::shared_ptr<void> SessionService::TakePlace() {
  if (open_->fetch_add(1) >= options_.max_transfers) {
    open_->fetch_sub(1);
    return nullptr;
  }
  return std::shared_ptr<void>(
      open_.get(), [open = open_](void* /*place*/) { open->fetch_sub(1); });
}

grpc::ServerWriteReactor<v1::SaveStateReply>* SessionService::SaveState(
    grpc::CallbackServerContext* /*context*/,
    const v1::SaveStateRequest* request) {
  const absl::StatusOr<Engine*> engine = options_.backend->engine_to_leave();
  if (!engine.ok()) return NewSaveStream(engine.status());
  absl::StatusOr<SaveOrder> order =
      OrderFromProto(*request, options_.backend->info());
  if (!order.ok()) return NewSaveStream(order.status());
  order->place = TakePlace();
  if (order->place == nullptr) {
    return NewSaveStream(TooMany(options_.max_transfers));
  }
  return NewSaveStream(*engine, *std::move(order));
}

grpc::ServerReadReactor<v1::LoadStateRequest>* SessionService::LoadState(
    grpc::CallbackServerContext* /*context*/, v1::LoadStateReply* response) {
  const absl::StatusOr<Engine*> engine = options_.backend->engine();
  if (!engine.ok()) return NewLoadStream(engine.status());
  const WorkerInfo info = options_.backend->info();
  LoadOrder order;
  order.model = info.model_fingerprint;
  order.max_tokens = info.max_model_len;
  order.place = TakePlace();
  if (order.place == nullptr) {
    return NewLoadStream(TooMany(options_.max_transfers));
  }
  return NewLoadStream(*engine, std::move(order), response);
}

}  // namespace switchyard::attention_worker

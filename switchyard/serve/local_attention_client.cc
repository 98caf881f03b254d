#include "switchyard/serve/local_attention_client.h"

#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "attention_worker/service/generation_codec.h"
#include "attention_worker/service/request_trace.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "router/client/generation_codec.h"
#include "tracing/span/trace_context.h"

namespace switchyard {
namespace {

using attention_worker::RequestTrace;

// The engine's sink, which is the router's listener.
class ListenerSink final : public attention_worker::TokenSink {
 public:
  // `trace` may be null.
  ListenerSink(std::shared_ptr<router::TokenListener> listener,
               std::unique_ptr<RequestTrace> trace)
      : listener_(std::move(listener)), trace_(std::move(trace)) {}

  void OnToken(const attention_worker::GeneratedToken& token) override {
    const v1::GenerateReply reply = attention_worker::TokenToProto(token);
    const absl::StatusOr<router::TokenEvent> event =
        router::TokenEventFromProto(reply.token());
    SY_CHECK(event.ok());  // our own engine speaks our own protocol
    listener_->OnToken(*event);
  }

  void OnDone(const absl::Status& status, attention_worker::FinishReason reason,
              const attention_worker::GenerationUsage& usage) override {
    if (trace_ != nullptr) trace_->Done(status, usage, absl::Now());
    if (!status.ok()) {
      listener_->OnDone(status, router::TokenFinish::kStop, {});
      return;
    }
    const v1::GenerateReply reply =
        attention_worker::FinishedToProto(reason, usage);
    const absl::StatusOr<router::TokenOutcome> outcome =
        router::TokenOutcomeFromProto(reply.finished());
    SY_CHECK(outcome.ok());
    listener_->OnDone(status, outcome->finish, outcome->usage);
  }

 private:
  const std::shared_ptr<router::TokenListener> listener_;
  const std::unique_ptr<RequestTrace> trace_;
};

class LocalAttentionClient final : public router::AttentionClient {
 public:
  LocalAttentionClient(attention_worker::GenerationBackend* backend,
                       tracing::SpanSink* spans)
      : backend_(backend), spans_(spans) {}

  std::string name() const override { return "local"; }

  router::AttentionWorkerInfo info() const override {
    v1::WorkerInfo message;
    attention_worker::WorkerInfoToProto(backend_->info(), &message);
    absl::StatusOr<router::AttentionWorkerInfo> info =
        router::AttentionWorkerInfoFromProto(message);
    SY_CHECK(info.ok());
    return *std::move(info);
  }

  void Generate(router::TokenRequest request,
                std::shared_ptr<router::TokenListener> listener) override {
    const absl::Status status = Submit(request, listener);
    if (!status.ok()) listener->OnDone(status, router::TokenFinish::kStop, {});
  }

  void Cancel(const std::string& request_id) override {
    const absl::StatusOr<attention_worker::Engine*> engine = backend_->engine();
    if (engine.ok()) (*engine)->Cancel(request_id);
  }

  void FlushCache(std::function<void(absl::Status)> done) override {
    const absl::StatusOr<attention_worker::Engine*> engine = backend_->engine();
    done(engine.ok() ? (*engine)->FlushCache() : engine.status());
  }

 private:
  absl::Status Submit(const router::TokenRequest& request,
                      std::shared_ptr<router::TokenListener> listener) {
    SY_ASSIGN_OR_RETURN(attention_worker::Engine* const engine,
                        backend_->engine());
    SY_ASSIGN_OR_RETURN(
        const v1::GenerateRequest message,
        router::TokenRequestToProto(request, /*model_fingerprint=*/""));
    SY_ASSIGN_OR_RETURN(attention_worker::GenerationRequest generation,
                        attention_worker::GenerationRequestFromProto(message));
    generation.deadline = request.deadline;
    return engine->Submit(
        std::move(generation),
        std::make_unique<ListenerSink>(std::move(listener), TraceOf(request)));
  }

  // Null: it is not traced.
  std::unique_ptr<RequestTrace> TraceOf(const router::TokenRequest& request) {
    if (spans_ == nullptr) return nullptr;
    const auto parent = tracing::ParseTraceparent(request.traceparent);
    if (!parent || !parent->sampled) return nullptr;
    return std::make_unique<RequestTrace>(spans_, *parent, request.id,
                                          absl::Now(), /*experts=*/nullptr);
  }

  attention_worker::GenerationBackend* const backend_;
  tracing::SpanSink* const spans_;
};

}  // namespace

std::shared_ptr<router::AttentionClient> NewLocalAttentionClient(
    attention_worker::GenerationBackend* backend, tracing::SpanSink* spans) {
  return std::make_shared<LocalAttentionClient>(backend, spans);
}

}  // namespace switchyard

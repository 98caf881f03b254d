#include "attention_worker/moe/local_expert_client.h"

#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/types/span.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {

LocalExpertClient::LocalExpertClient(experts::ExpertEngine* engine,
                                     metrics::Registry* registry)
    : engine_holdings_(engine->holdings()),
      metrics_(registry, "local"),
      engine_(engine) {}

absl::StatusOr<ExpertReply> LocalExpertClient::Compute(const ExpertCall& call) {
  if (absl::Now() >= call.deadline) {
    return absl::DeadlineExceededError(
        absl::StrCat("layer ", call.layer, ": the deadline came before the ",
                     "experts of this process could compute"));
  }
  SY_CHECK(call.num_rows > 0 &&
           call.rows.size() % static_cast<size_t>(call.num_rows) == 0);
  const size_t hidden = call.rows.size() / static_cast<size_t>(call.num_rows);
  const experts::ExpertBatch batch{.layer = call.layer,
                                   .num_rows = call.num_rows,
                                   .rows = call.rows,
                                   .runs = call.runs};
  ExpertReply reply;
  reply.outputs.resize(static_cast<size_t>(batch.num_outputs()) * hidden);
  MutexLock lock(&mutex_);
  const absl::Time start = absl::Now();
  SY_RETURN_IF_ERROR(engine_->Compute(batch, absl::MakeSpan(reply.outputs)));
  reply.compute_time = absl::Now() - start;
  return reply;
}

void LocalExpertClient::Forward(ExpertCall call, Done done) {
  const absl::Time start = absl::Now();
  absl::StatusOr<ExpertReply> reply = Compute(call);
  if (reply.ok()) {
    const absl::Duration spent = absl::Now() - start;
    metrics_.CallDone(call.num_rows, spent, absl::ZeroDuration(), spent);
  } else {
    metrics_.CallFailed(reply.status().code());
  }
  std::move(done)(std::move(reply));
}

}  // namespace switchyard::attention_worker

#include "attention_worker/moe/local_expert_client.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {
namespace {

// A long prompt's outputs: 2,048 rows of 10 experts at H = 2048.
constexpr size_t kMaxIdleBytes = size_t{192} << 20;

}  // namespace

LocalExpertClient::LocalExpertClient(experts::ExpertEngine* engine,
                                     metrics::Registry* registry,
                                     std::string name, const Clock* clock)
    : name_(std::move(name)),
      clock_(*clock),
      engine_holdings_(engine->holdings()),
      metrics_(registry, name_),
      buffers_(BufferPool::Create(kMaxIdleBytes)),
      engine_(engine) {}

absl::StatusOr<ExpertReply> LocalExpertClient::Compute(const ExpertCall& call) {
  if (clock_.Now() >= call.deadline) {
    return absl::DeadlineExceededError(
        absl::StrCat("layer ", call.layer, ": the deadline came before the ",
                     "experts of this process could compute"));
  }
  SY_CHECK(call.num_rows > 0 &&
           call.num_rows == static_cast<int64_t>(call.source_rows.size()));
  const auto hidden = static_cast<size_t>(call.hidden_size);
  experts::ExpertBatch batch{.layer = call.layer,
                             .num_rows = call.num_rows,
                             .rows = call.rows,
                             .runs = call.runs,
                             .quantized = call.quantized,
                             .rounded = call.rounded};
  PooledBuffer gathered;
  if (call.rows.size() != call.source_rows.size() * hidden) {
    // Some of the rows are another holder's. The engine quantises or rounds the
    // others again, if it wants that, to the same bits.
    batch.quantized = {};
    batch.rounded = nullptr;
    gathered = buffers_->Take(call.source_rows.size() * hidden * sizeof(float));
    float* to = gathered.data<float>();
    for (const int32_t row : call.source_rows) {
      std::copy_n(&call.rows[static_cast<size_t>(row) * hidden], hidden, to);
      to += hidden;
    }
    batch.rows = gathered.span<float>();
  }
  PooledBuffer outputs = buffers_->Take(
      static_cast<size_t>(call.num_outputs()) * hidden * sizeof(float));
  MutexLock lock(&mutex_);
  const absl::Time start = clock_.Now();
  SY_RETURN_IF_ERROR(engine_->Compute(batch, outputs.span<float>()));
  ExpertReply reply(std::move(outputs));
  reply.set_compute_time(clock_.Now() - start);
  return reply;
}

void LocalExpertClient::Forward(const ExpertCall& call, Done done) {
  const absl::Time start = clock_.Now();
  absl::StatusOr<ExpertReply> reply = Compute(call);
  if (reply.ok()) {
    metrics_.CallDone(call.num_rows, {.wire_out = {},
                                      .queue = {},
                                      .compute = clock_.Now() - start,
                                      .wire_back = {}});
  } else {
    metrics_.CallFailed(reply.status().code());
  }
  std::move(done)(std::move(reply));
}

}  // namespace switchyard::attention_worker

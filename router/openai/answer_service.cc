#include "router/openai/answer_service.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "model/sha256.h"
#include "router/openai/stream_id.h"

namespace switchyard::router {
namespace {

// Clients give up on longer ones.
constexpr int64_t kMaxRetryAfterSeconds = 3600;

// Who asks, in a form that does not give the key away; "" without one.
std::string KeyHash(const HttpRequest& request) {
  const std::string* key = request.FindHeader("authorization");
  if (key == nullptr) key = request.FindHeader("x-api-key");
  if (key == nullptr) return "";
  model::Sha256 hash;
  hash.Update(*key);
  return hash.FinishHex().substr(0, 16);
}

absl::Status OfAnotherRequest() {
  return absl::InvalidArgumentError(
      "Last-Event-ID is of an answer to another request, or of another model; "
      "send the body of the request that the stream was the answer to, byte "
      "for byte, or leave the header out");
}

}  // namespace

// A request between its acceptance and its generation.
struct AnswerService::Job {
  PlanContext context;
  std::string body;
  std::string client;  // whose API key it was; "": there are none
  std::string key_hash;
  std::string request_id;
  std::string traceparent;
  absl::Time arrival;
  ErrorFunction error;
  std::unique_ptr<Admission::Ticket> ticket;
  std::shared_ptr<ResponseWriter> writer;
  // Of a stream that a client may go on with, or goes on with.
  absl::optional<StreamId> stream_id;
  absl::optional<StreamPosition> resume;
  bool gone = false;  // the strand's
};

AnswerService::AnswerService(Options options) : options_(std::move(options)) {}

PlanContext AnswerService::MakeContext() {
  PlanContext context;
  context.max_model_len = options_.max_model_len;
  context.id =
      absl::StrCat(absl::Hex(options_.random(), absl::kZeroPad16),
                   absl::Hex(options_.random() >> 32, absl::kZeroPad8));
  context.created = absl::ToUnixSeconds(options_.generation.timers->Now());
  context.model = options_.served_model_name;
  const WorkerPool::ServedModel served = options_.workers->served_model();
  if (served.max_model_len > 0) {
    context.max_model_len =
        std::min(context.max_model_len, served.max_model_len);
  }
  // Of the build and the weights: what a seed's meaning depends on.
  context.system_fingerprint = absl::StrCat("switchyard-", kVersion, "-",
                                            served.fingerprint.substr(0, 12));
  context.seed = options_.random();
  return context;
}

void AnswerService::Answer(HttpRequest request,
                           std::shared_ptr<ResponseWriter> writer,
                           PlanFunction plan, ErrorFunction error) {
  absl::StatusOr<std::unique_ptr<Admission::Ticket>> ticket =
      options_.admission->Admit();
  if (!ticket.ok()) return writer->Send(error(ToApiError(ticket.status())));
  auto job = std::make_shared<Job>();
  job->body = std::move(request.body);
  job->client = request.client;
  job->traceparent = request.traceparent;
  job->request_id = *request.FindHeader("x-request-id");
  job->key_hash = KeyHash(request);
  job->arrival = options_.generation.timers->Now();
  job->context = MakeContext();
  const absl::Status resumes = MakeResumable(request, job.get());
  job->error = std::move(error);
  job->ticket = *std::move(ticket);
  job->writer = std::move(writer);
  const bool any = absl::c_any_of(
      options_.workers->Describe(), [](const WorkerPool::WorkerStatus& worker) {
        return worker.not_ready.empty() || worker.can_wait;
      });
  if (!any && job->arrival >= options_.workers->ExpectedBackBy()) {
    // Refused before any work is done for it, with what Choose() says of each
    // worker. Only now: a choice that is not used takes another's turn.
    if (const auto worker = options_.workers->Choose(); !worker.ok()) {
      return job->writer->Send(job->error(ToApiError(worker.status())));
    }
  }
  // Only now: without a worker nobody knows the model.
  if (!resumes.ok()) {
    return job->writer->Send(job->error(ToApiError(resumes)));
  }
  job->writer->OnGone([weak = std::weak_ptr<Job>(job)] {
    if (auto live = weak.lock()) live->gone = true;
  });
  const int64_t bytes = static_cast<int64_t>(job->body.size());
  const absl::Status queued =
      options_.text_pool->Submit(bytes, [this, job, plan = std::move(plan)] {
        auto made = std::make_shared<absl::StatusOr<GenerationPlan>>(
            plan(job->body, job->context));
        job->body = std::string();
        job->writer->Post([this, job, made] { Start(job, made.get()); });
      });
  if (!queued.ok()) job->writer->Send(job->error(ToApiError(queued)));
}

absl::Status AnswerService::MakeResumable(const HttpRequest& request,
                                          Job* job) {
  const std::string* last = request.FindHeader("last-event-id");
  if (last == nullptr && request.FindHeader("x-stream-resumable") == nullptr) {
    return absl::OkStatus();
  }
  PlanContext& context = job->context;
  const std::string digest =
      RequestDigest(job->body, context.system_fingerprint);
  job->stream_id = StreamId{.answer = context.id,
                            .created = context.created,
                            .seed = context.seed,
                            .request = digest};
  if (last == nullptr) return absl::OkStatus();
  SY_ASSIGN_OR_RETURN(StreamPosition position, ParseEventId(*last));
  if (position.stream.request != digest) return OfAnotherRequest();
  job->stream_id = position.stream;
  context.id = position.stream.answer;
  context.created = position.stream.created;
  context.seed = position.stream.seed;
  job->resume = std::move(position);
  return absl::OkStatus();
}

void AnswerService::Compute(HttpRequest request,
                            const std::shared_ptr<ResponseWriter>& writer,
                            TextFunction compute, const ErrorFunction& error) {
  const int64_t bytes = static_cast<int64_t>(request.body.size());
  const absl::Status queued = options_.text_pool->Submit(
      bytes, [body = std::move(request.body), context = MakeContext(), writer,
              compute = std::move(compute), error] {
        absl::StatusOr<HttpResponse> made = compute(body, context);
        auto response = std::make_shared<HttpResponse>(
            made.ok() ? *std::move(made) : error(ToApiError(made.status())));
        // On the strand: there, whoever drops the writer last does so behind.
        writer->Post(
            [writer, response] { writer->Send(std::move(*response)); });
      });
  if (!queued.ok()) writer->Send(error(ToApiError(queued)));
}

bool AnswerService::ready() const {
  return !options_.admission->closed() &&
         absl::c_any_of(options_.workers->Describe(),
                        [](const WorkerPool::WorkerStatus& worker) {
                          return worker.not_ready.empty();
                        });
}

void AnswerService::Start(const std::shared_ptr<Job>& job,
                          absl::StatusOr<GenerationPlan>* plan) {
  if (job->gone) return options_.generation.metrics->OnAborted();
  absl::Status status = plan->status();
  if (status.ok() && job->stream_id && (*plan)->params.stream) {
    const size_t choices =
        (*plan)->prompts.size() * static_cast<size_t>((*plan)->params.n);
    if (job->resume && job->resume->events.size() != choices) {
      status = OfAnotherRequest();
    }
    (*plan)->stream_id = std::move(job->stream_id);
    (*plan)->resume = std::move(job->resume);
  }
  if (status.ok()) return Run(job, **plan);
  job->ticket.reset();
  job->writer->Send(job->error(ToApiError(status)));
}

void AnswerService::Run(const std::shared_ptr<Job>& job, GenerationPlan& plan) {
  plan.params.client = absl::StrCat(job->key_hash, "/", plan.params.client);
  if (options_.access != nullptr) {
    plan.on_end = [access = options_.access, client = job->client](
                      int64_t tokens) { access->Charge(client, tokens); };
  }
  const absl::Duration timeout =
      std::min(plan.params.timeout.value_or(options_.request_timeout),
               options_.request_timeout);
  absl::Status aborted;
  uint64_t key = 0;
  {
    MutexLock lock(&mutex_);
    key = ++last_generation_;
  }
  int64_t prompt_tokens = 0;
  for (const auto& prompt : plan.prompts) {
    prompt_tokens += static_cast<int64_t>(prompt.size());
  }
  if (const Admission::Decision decision =
          job->ticket->AwaitToken(prompt_tokens);
      !decision.status.ok()) {
    ApiError error = ToApiError(decision.status);
    error.retry_after_seconds = static_cast<int>(
        std::clamp<int64_t>(absl::ToInt64Seconds(absl::Ceil(
                                decision.retry_after, absl::Seconds(1))),
                            1, kMaxRetryAfterSeconds));
    job->ticket.reset();
    return job->writer->Send(job->error(error));
  }
  plan.traceparent = job->traceparent;
  Log(LogLevel::kDebug,
      absl::StrCat("request ", job->request_id, " is ", plan.id, ", seed ",
                   plan.params.sampling.seed));
  std::shared_ptr<ResponseWriter> writer = job->writer;
  if (plan.wrap_writer) writer = plan.wrap_writer(std::move(writer));
  auto generation = std::make_shared<Generation>(
      &options_.generation, std::move(plan), job->arrival,
      job->arrival + timeout, std::move(job->ticket), writer, [this, key] {
        Active ended;  // destroyed without the lock
        MutexLock lock(&mutex_);
        ended = std::move(active_[key]);
        active_.erase(key);
      });
  {
    MutexLock lock(&mutex_);
    active_[key] = {generation, writer};
    aborted = aborted_;
  }
  if (!aborted.ok()) return generation->Fail(aborted);
  generation->Start();
}

int AnswerService::Interrupt(absl::string_view name,
                             const std::string& reason) {
  return InterruptWhere(
      [name](const Generation& generation) {
        return absl::c_linear_search(generation.names(), name);
      },
      reason);
}

int AnswerService::InterruptAll(const std::string& reason) {
  return InterruptWhere([](const Generation&) { return true; }, reason);
}

int AnswerService::InterruptWhere(
    absl::FunctionRef<bool(const Generation&)> which,
    const std::string& reason) {
  std::vector<Active> found;
  {
    MutexLock lock(&mutex_);
    for (const auto& [key, entry] : active_) {
      if (which(*entry.generation)) found.push_back(entry);
    }
  }
  for (const Active& entry : found) {
    entry.writer->Post([generation = entry.generation, reason] {
      generation->Interrupt(reason);
    });
  }
  return static_cast<int>(found.size());
}

void AnswerService::AbortAll(const absl::Status& status) {
  std::vector<Active> active;
  {
    MutexLock lock(&mutex_);
    aborted_ = status;
    for (const auto& [key, entry] : active_) active.push_back(entry);
  }
  for (const Active& entry : active) {
    entry.writer->Post(
        [generation = entry.generation, status] { generation->Fail(status); });
  }
}

}  // namespace switchyard::router

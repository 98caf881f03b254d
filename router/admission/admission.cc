#include "router/admission/admission.h"

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"

namespace switchyard::router {

Admission::Ticket::~Ticket() {
  const absl::Time now = admission_->options_.now();
  MutexLock lock(&admission_->mutex_);
  if (prompt_tokens_.has_value()) {
    admission_->ttft_.Ended(*prompt_tokens_, /*has_token=*/false, now);
  }
  --(running_ ? admission_->running_ : admission_->waiting_);
  admission_->changed_.SignalAll();
}

Admission::Decision Admission::Ticket::AwaitToken(int64_t prompt_tokens) {
  const Options& options = admission_->options_;
  const absl::Time now = options.now();
  MutexLock lock(&admission_->mutex_);
  TtftEstimate& ttft = admission_->ttft_;
  const int64_t before = ttft.waiting_tokens();
  const auto estimate = ttft.For(prompt_tokens);
  if (before > 0 && options.max_waiting_tokens > 0 &&
      prompt_tokens > options.max_waiting_tokens - before) {
    return {absl::ResourceExhaustedError(absl::StrCat(
                before, " tokens of prompts wait already, with these ",
                prompt_tokens, " more than the ", options.max_waiting_tokens,
                " that may (--max-queued-tokens); try again later")),
            ttft.For(0).value_or(absl::Seconds(1))};
  }
  if (before > 0 && options.max_ttft > absl::ZeroDuration() &&
      estimate.has_value() && *estimate > options.max_ttft) {
    return {absl::ResourceExhaustedError(absl::StrCat(
                "the first token would take about ",
                absl::FormatDuration(absl::Ceil(*estimate, absl::Seconds(1))),
                ", longer than ", absl::FormatDuration(options.max_ttft),
                " (--max-ttft); try again later")),
            *estimate - options.max_ttft};
  }
  ttft.Began(prompt_tokens, now);
  prompt_tokens_ = prompt_tokens;
  return {absl::OkStatus(), absl::ZeroDuration()};
}

void Admission::Ticket::SetRunning() {
  if (running_) return;
  running_ = true;
  const absl::Time now = admission_->options_.now();
  MutexLock lock(&admission_->mutex_);
  if (prompt_tokens_.has_value()) {
    admission_->ttft_.Ended(*prompt_tokens_, /*has_token=*/true, now);
    prompt_tokens_.reset();
  }
  --admission_->waiting_;
  ++admission_->running_;
}

absl::StatusOr<std::unique_ptr<Admission::Ticket>> Admission::Admit() {
  MutexLock lock(&mutex_);
  if (closed_) {
    return absl::UnavailableError("the server is shutting down");
  }
  if (waiting_ + running_ >= options_.max_open) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the server already has ", options_.max_open,
        " open requests (--max-queued-requests); try again later"));
  }
  ++waiting_;
  return absl::WrapUnique(new Ticket(this));
}

void Admission::Close() {
  MutexLock lock(&mutex_);
  closed_ = true;
}

bool Admission::closed() const {
  MutexLock lock(&mutex_);
  return closed_;
}

bool Admission::WaitUntilIdle(absl::Time deadline) {
  MutexLock lock(&mutex_);
  while (waiting_ + running_ > 0) {
    if (!changed_.WaitUntil(&mutex_, deadline)) {
      return waiting_ + running_ == 0;
    }
  }
  return true;
}

int64_t Admission::waiting() const {
  MutexLock lock(&mutex_);
  return waiting_;
}

int64_t Admission::running() const {
  MutexLock lock(&mutex_);
  return running_;
}

int64_t Admission::waiting_tokens() const {
  MutexLock lock(&mutex_);
  return ttft_.waiting_tokens();
}

absl::optional<absl::Duration> Admission::estimated_ttft() const {
  MutexLock lock(&mutex_);
  return ttft_.For(0);
}

}  // namespace switchyard::router

#include "router/admission/admission.h"

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"

namespace switchyard::router {

Admission::Ticket::~Ticket() {
  MutexLock lock(&admission_->mutex_);
  --(running_ ? admission_->running_ : admission_->waiting_);
  admission_->changed_.SignalAll();
}

void Admission::Ticket::SetRunning() {
  if (running_) return;
  running_ = true;
  MutexLock lock(&admission_->mutex_);
  --admission_->waiting_;
  ++admission_->running_;
}

absl::StatusOr<std::unique_ptr<Admission::Ticket>> Admission::Admit() {
  MutexLock lock(&mutex_);
  if (closed_) {
    return absl::UnavailableError("the server is shutting down");
  }
  if (waiting_ + running_ >= max_open_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the server already has ", max_open_,
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

}  // namespace switchyard::router

#include "router/admission/text_pool.h"

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/thread.h"

namespace switchyard::router {

TextPool::TextPool(const Options& options) : options_(options) {
  for (int i = 1; i <= options_.num_threads; ++i) {
    threads_.push_back(
        StartThread(absl::StrCat("text-", i), [this] { Run(); }));
  }
}

TextPool::~TextPool() { Stop(); }

void TextPool::Stop() {
  std::deque<std::pair<int64_t, std::function<void()>>> dropped;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    dropped.swap(queue_);
    queued_bytes_ = 0;
    changed_.SignalAll();
  }
  dropped.clear();  // at once, not after the join: it may hold connections
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

absl::Status TextPool::Submit(int64_t bytes, std::function<void()> work) {
  MutexLock lock(&mutex_);
  if (stopping_) return absl::UnavailableError("the server is shutting down");
  const int64_t queued = static_cast<int64_t>(queue_.size());
  // One large text is always let in, or it could never be served.
  if (queued >= options_.max_queued ||
      (queued > 0 && queued_bytes_ + bytes > options_.max_queued_bytes)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("too much text is waiting to be tokenized (", queued,
                     " requests, ", queued_bytes_, " bytes); try again later"));
  }
  queue_.emplace_back(bytes, std::move(work));
  queued_bytes_ += bytes;
  changed_.Signal();
  return absl::OkStatus();
}

void TextPool::Run() {
  while (true) {
    std::function<void()> work;
    {
      MutexLock lock(&mutex_);
      while (queue_.empty() && !stopping_) {
        changed_.WaitUntil(&mutex_, absl::InfiniteFuture());
      }
      if (stopping_) return;
      queued_bytes_ -= queue_.front().first;
      work = std::move(queue_.front().second);
      queue_.pop_front();
    }
    work();
  }
}

}  // namespace switchyard::router

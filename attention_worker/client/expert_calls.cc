#include "attention_worker/client/expert_calls.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace switchyard::attention_worker {

absl::Status ExpertCalls::CheckRoom(int64_t num_rows,
                                    int64_t max_rows_in_flight) const {
  if (num_rows > max_rows_in_flight) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a call of ", num_rows, " rows, but the worker takes ",
                     max_rows_in_flight, " at a time"));
  }
  const int64_t queued = waiting_rows_ + sent_rows_;
  if (num_rows > max_queued_rows_ - queued) {
    return absl::ResourceExhaustedError(
        absl::StrCat(queued, " of at most ", max_queued_rows_,
                     " rows are waiting or in flight; no room for ", num_rows));
  }
  return absl::OkStatus();
}

void ExpertCalls::Add(Outgoing call) {
  waiting_rows_ += call.num_rows;
  waiting_.push_back(std::move(call));
}

absl::optional<ExpertCalls::Outgoing> ExpertCalls::NextToSend(
    int64_t max_rows_in_flight, absl::Time now) {
  if (waiting_.empty() ||
      sent_rows_ + waiting_.front().num_rows > max_rows_in_flight) {
    return absl::nullopt;
  }
  Outgoing call = std::move(waiting_.front());
  waiting_.pop_front();
  waiting_rows_ -= call.num_rows;
  sent_rows_ += call.num_rows;
  sent_.emplace(call.encoded.header.sequence(),
                Sent{.done = std::move(call.done),
                     .deadline = call.deadline,
                     .start = call.start,
                     .written = now,
                     .num_rows = call.num_rows,
                     .num_outputs = call.num_outputs});
  return call;
}

const ExpertCalls::Sent* ExpertCalls::Find(uint64_t sequence) const {
  const auto found = sent_.find(sequence);
  return found == sent_.end() ? nullptr : &found->second;
}

ExpertCalls::Sent ExpertCalls::Take(uint64_t sequence) {
  const auto found = sent_.find(sequence);
  SY_CHECK(found != sent_.end());
  Sent sent = std::move(found->second);
  sent_.erase(found);
  sent_rows_ -= sent.num_rows;
  return sent;
}

std::vector<ExpertCalls::Failure> ExpertCalls::Expire(absl::Time now) {
  std::vector<Failure> late;
  for (auto& [sequence, sent] : sent_) {
    if (now < sent.deadline || !sent.done) continue;
    late.push_back(
        {std::move(sent.done),
         absl::DeadlineExceededError("no answer before the deadline")});
    sent.done = nullptr;
  }
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    if (now < it->deadline) {
      ++it;
      continue;
    }
    late.push_back({std::move(it->done),
                    absl::DeadlineExceededError(
                        "the deadline came while the worker had no room")});
    waiting_rows_ -= it->num_rows;
    it = waiting_.erase(it);
  }
  return late;
}

std::vector<ExpertCalls::Failure> ExpertCalls::FailAll(
    const absl::Status& why) {
  std::vector<Failure> failed;
  for (auto& [sequence, sent] : sent_) {
    if (sent.done) failed.push_back({std::move(sent.done), why});
  }
  for (Outgoing& call : waiting_) {
    failed.push_back({std::move(call.done), why});
  }
  sent_.clear();
  waiting_.clear();
  sent_rows_ = waiting_rows_ = 0;
  return failed;
}

absl::Time ExpertCalls::next_deadline() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [sequence, sent] : sent_) {
    if (sent.done) next = std::min(next, sent.deadline);
  }
  for (const Outgoing& call : waiting_) next = std::min(next, call.deadline);
  return next;
}

}  // namespace switchyard::attention_worker

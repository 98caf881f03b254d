#include "attention_worker/moe/pair_table.h"

#include <cstring>
#include <limits>
#include <utility>

#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

bool IsFinished(PairTable::State state) {
  return state == PairTable::State::kDone || state == PairTable::State::kFailed;
}

}  // namespace

void PairTable::Begin(const DispatchRequest* request, bool believe_first) {
  request_ = request;
  believe_first_ = believe_first;
  const size_t num_pairs = request->experts.size();
  states_.assign(num_pairs, State::kWaiting);
  copies_.assign(num_pairs, 0);
  verify_.assign(num_pairs, false);
  answered_by_.assign(num_pairs, -1);
  outputs_.assign(num_pairs, nullptr);
  disputes_.clear();
  sequence_status_.assign(request->deadlines.size(), absl::OkStatus());
  unfinished_.assign(request->deadlines.size(), 0);
  for (const int32_t sequence : request->sequence_of_row) {
    SY_CHECK(sequence >= 0 &&
             static_cast<size_t>(sequence) < unfinished_.size());
    unfinished_[sequence] += request->experts_per_row;
  }
  num_unfinished_ = num_wanting_ = static_cast<int64_t>(num_pairs);
  num_half_ = 0;
}

void PairTable::Move(int64_t pair, State state, int copies) {
  const State before = states_[pair];
  const bool wanted = WantsCall(pair);
  states_[pair] = state;
  SY_CHECK(copies >= 0 && copies <= std::numeric_limits<uint8_t>::max());
  copies_[pair] = static_cast<uint8_t>(copies);
  num_wanting_ += int{WantsCall(pair)} - int{wanted};
  num_half_ += int{state == State::kHalf} - int{before == State::kHalf};
  const int unfinished = int{!IsFinished(state)} - int{!IsFinished(before)};
  num_unfinished_ += unfinished;
  unfinished_[sequence(pair)] += unfinished;
}

void PairTable::Sent(int64_t pair) {
  Move(pair,
       states_[pair] == State::kWaiting ? State::kInFlight : states_[pair],
       copies_[pair] + 1);
}

void PairTable::Lost(int64_t pair) {
  const int copies = copies_[pair] - 1;
  State state = states_[pair];
  if (state == State::kInFlight && copies == 0) state = State::kWaiting;
  Move(pair, state, copies);
}

PairTable::Outcome PairTable::Answered(int64_t pair, int32_t call,
                                       const float* output) {
  const int copies = copies_[pair] - 1;
  switch (states_[pair]) {
    case State::kFailed:
      Move(pair, State::kFailed, copies);
      return Outcome::kIgnored;
    case State::kWaiting:  // it is in no call
      SY_CHECK(false);
      return Outcome::kIgnored;
    case State::kInFlight:
      outputs_[pair] = output;
      answered_by_[pair] = call;
      Move(pair, verify_[pair] ? State::kHalf : State::kDone, copies);
      return verify_[pair] ? Outcome::kHalf : Outcome::kAccepted;
    case State::kHalf:
    case State::kDone:
      if (SameBits(outputs_[pair], output)) {
        Move(pair, State::kDone, copies);
        return Outcome::kAgreed;
      }
      disputes_.push_back({.pair = pair,
                           .calls = {answered_by_[pair], call},
                           .outputs = {outputs_[pair], output}});
      Move(pair, State::kDisputed, copies);
      return Outcome::kDiffers;
    case State::kDisputed:
      break;
  }
  Move(pair, State::kDisputed, copies);
  const Dispute& dispute = disputes_[FindDispute(pair)];
  for (int side = 0; side < 2; ++side) {
    if (!SameBits(dispute.outputs[side], output)) continue;
    Settle(pair, dispute.calls[side]);
    return Outcome::kDecided;
  }
  return Outcome::kNoneAgree;
}

void PairTable::Settle(int64_t pair, int32_t call) {
  if (states_[pair] == State::kDisputed) {
    const size_t index = FindDispute(pair);
    const Dispute& dispute = disputes_[index];
    SY_CHECK(dispute.calls[0] == call || dispute.calls[1] == call);
    const int side = dispute.calls[0] == call ? 0 : 1;
    outputs_[pair] = dispute.outputs[side];
    answered_by_[pair] = call;
    EndDispute(index);
  } else {
    SY_CHECK(states_[pair] == State::kHalf && answered_by_[pair] == call);
  }
  Move(pair, State::kDone, copies_[pair]);
}

void PairTable::Forget(int64_t pair) {
  if (states_[pair] == State::kDisputed) EndDispute(FindDispute(pair));
  outputs_[pair] = nullptr;
  answered_by_[pair] = -1;
  Move(pair, copies_[pair] > 0 ? State::kInFlight : State::kWaiting,
       copies_[pair]);
}

void PairTable::FailSequence(size_t sequence_index, absl::Status status) {
  for (int64_t pair = 0; pair < size(); ++pair) {
    if (sequence(pair) != sequence_index) continue;
    if (states_[pair] == State::kDisputed) EndDispute(FindDispute(pair));
    Move(pair, State::kFailed, copies_[pair]);
  }
  sequence_status_[sequence_index] = std::move(status);
}

size_t PairTable::FindDispute(int64_t pair) const {
  for (size_t i = 0; i < disputes_.size(); ++i) {
    if (disputes_[i].pair == pair) return i;
  }
  SY_CHECK(false);
  return 0;
}

void PairTable::EndDispute(size_t index) {
  disputes_[index] = disputes_.back();
  disputes_.pop_back();
}

bool PairTable::SameBits(const float* a, const float* b) const {
  return believe_first_ ||
         std::memcmp(
             a, b,
             static_cast<size_t>(request_->hidden_size) * sizeof(float)) == 0;
}

}  // namespace switchyard::attention_worker

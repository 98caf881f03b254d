#include "attention_worker/moe/probe_disputes.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace switchyard::attention_worker {
namespace {

constexpr size_t kMaxDisputes = 64;

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

bool ProbeDisputes::Keep(absl::FunctionRef<bool(const Voter&)> is_there) {
  bool changed = false;
  for (auto it = disputes_.begin(); it != disputes_.end();) {
    std::vector<Ballot>& ballots = it->second;
    const size_t before = ballots.size();
    ballots.erase(std::remove_if(ballots.begin(), ballots.end(),
                                 [&](const Ballot& ballot) {
                                   return !is_there(ballot.voter);
                                 }),
                  ballots.end());
    changed = changed || ballots.size() != before;
    // Nobody is contradicted by one voter alone.
    it = ballots.size() < 2 ? disputes_.erase(it) : std::next(it);
  }
  return changed;
}

bool ProbeDisputes::Vote(const Key& key, const Voter& voter,
                         std::vector<float> answer) {
  if (disputes_.size() >= kMaxDisputes && !Contains(key)) return false;
  std::vector<Ballot>& ballots = disputes_[key];
  for (Ballot& ballot : ballots) {
    if (ballot.voter.holder == voter.holder) {
      ballot = {voter, std::move(answer)};
      return true;
    }
  }
  ballots.push_back({voter, std::move(answer)});
  return true;
}

std::optional<ProbeDisputes::Verdict> ProbeDisputes::Decide(const Key& key) {
  const auto dispute = disputes_.find(key);
  if (dispute == disputes_.end()) return std::nullopt;
  const std::vector<Ballot>& ballots = dispute->second;
  size_t most = 0;
  size_t next = 0;  // of another answer
  const Ballot* right = nullptr;
  for (size_t i = 0; i < ballots.size(); ++i) {
    const auto same = [&](const Ballot& other) {
      return SameBits(ballots[i].answer, other.answer);
    };
    const auto begin = ballots.begin();
    const auto here = begin + static_cast<int64_t>(i);
    if (std::any_of(begin, here, same)) continue;  // counted
    const auto votes =
        static_cast<size_t>(std::count_if(here, ballots.end(), same));
    if (votes > most) {
      next = most;
      most = votes;
      right = &ballots[i];
    } else {
      next = std::max(next, votes);
    }
  }
  if (most < 2 || most == next) return std::nullopt;
  Verdict verdict{.right = right->answer, .wrong = {}};
  for (const Ballot& ballot : ballots) {
    if (!SameBits(ballot.answer, verdict.right)) {
      verdict.wrong.push_back(ballot.voter);
    }
  }
  disputes_.erase(dispute);
  return verdict;
}

bool ProbeDisputes::HasVoted(const Key& key, uint64_t holder) const {
  const auto dispute = disputes_.find(key);
  return dispute != disputes_.end() &&
         std::any_of(dispute->second.begin(), dispute->second.end(),
                     [holder](const Ballot& ballot) {
                       return ballot.voter.holder == holder;
                     });
}

bool ProbeDisputes::Concerns(uint64_t holder) const {
  return std::any_of(
      disputes_.begin(), disputes_.end(),
      [&](const auto& dispute) { return HasVoted(dispute.first, holder); });
}

std::vector<ProbeDisputes::Key> ProbeDisputes::keys() const {
  std::vector<Key> keys;
  keys.reserve(disputes_.size());
  for (const auto& [key, ballots] : disputes_) keys.push_back(key);
  return keys;
}

}  // namespace switchyard::attention_worker

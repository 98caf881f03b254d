#include "router/membership/registry.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace switchyard::router {
namespace {

// Removals that are remembered for whoever is behind.
constexpr size_t kMaxRemoved = 4096;

std::string Describe(const fabric::Member& member) {
  return absl::StrCat(fabric::MemberRoleName(member.role), " ",
                      member.instance_id, " at ", member.address);
}

}  // namespace

MemberRegistry::MemberRegistry(Options options)
    : options_(std::move(options)),
      started_(options_.clock->Now()),
      heat_time_(started_) {
  SY_CHECK(options_.lease > options_.heartbeat &&
           options_.heartbeat >= absl::Milliseconds(1));
}

void MemberRegistry::SetListener(std::function<void()> listener) {
  MutexLock lock(&mutex_);
  listener_ = std::move(listener);
}

void MemberRegistry::Tell() {
  std::function<void()> listener;
  {
    MutexLock lock(&mutex_);
    listener = listener_;
  }
  if (listener) listener();
}

absl::Status MemberRegistry::Report(const fabric::Member& member) {
  SY_RETURN_IF_ERROR(fabric::CheckMember(member));
  {
    MutexLock lock(&mutex_);
    auto found = entries_.find(member.instance_id);
    if (found == entries_.end()) {
      std::string ghost;
      for (const auto& [id, entry] : entries_) {
        if (entry.member.role != member.role ||
            entry.member.address != member.address) {
          continue;
        }
        if (std::tuple(entry.member.started_unix_millis, id) >
            std::tuple(member.started_unix_millis, member.instance_id)) {
          return absl::FailedPreconditionError(absl::StrCat(
              Describe(member), " is refused: instance ", id,
              ", which started later, has that address; give the processes "
              "addresses of their own"));
        }
        ghost = id;
      }
      if (!ghost.empty()) {
        LogInfo(absl::StrCat(Describe(member), " takes the place of instance ",
                             ghost));
        Remove(ghost);
      }
      if (static_cast<int>(entries_.size()) >= options_.max_members) {
        return absl::ResourceExhaustedError(
            absl::StrCat("this router has ", entries_.size(),
                         " members, as many as it takes; ", Describe(member),
                         " is refused"));
      }
      LogInfo(absl::StrCat(Describe(member), " joined, ",
                           fabric::MemberStateName(member.state)));
      found = entries_.try_emplace(member.instance_id).first;
    } else if (found->second.member == member) {
      found->second.heard = options_.clock->Now();
      return absl::OkStatus();
    } else if (found->second.member.state != member.state) {
      LogInfo(absl::StrCat(Describe(member), " is ",
                           fabric::MemberStateName(member.state)));
    }
    found->second.member = member;
    found->second.heard = options_.clock->Now();
    found->second.version = ++version_;
  }
  Tell();
  return absl::OkStatus();
}

absl::Status MemberRegistry::Heartbeat(const std::string& instance_id) {
  MutexLock lock(&mutex_);
  const auto found = entries_.find(instance_id);
  if (found == entries_.end()) {
    return absl::NotFoundError(absl::StrCat(instance_id, " is not a member"));
  }
  found->second.heard = options_.clock->Now();
  return absl::OkStatus();
}

void MemberRegistry::Remove(const std::string& instance_id) {
  entries_.erase(instance_id);
  removed_.emplace_back(++version_, instance_id);
  if (removed_.size() > kMaxRemoved) {
    forgotten_ = removed_[kMaxRemoved / 2 - 1].first;
    removed_.erase(removed_.begin(), removed_.begin() + kMaxRemoved / 2);
  }
}

void MemberRegistry::Leave(const std::string& instance_id) {
  {
    MutexLock lock(&mutex_);
    const auto found = entries_.find(instance_id);
    if (found == entries_.end()) return;
    LogInfo(absl::StrCat(Describe(found->second.member), " left"));
    Remove(instance_id);
  }
  Tell();
}

void MemberRegistry::Expire() {
  {
    MutexLock lock(&mutex_);
    if (!ExpireLocked()) return;
  }
  Tell();
}

bool MemberRegistry::ExpireLocked() {
  const absl::Time now = options_.clock->Now();
  std::vector<std::string> expired;
  for (const auto& [id, entry] : entries_) {
    if (now - entry.heard < options_.lease) continue;
    LogWarning(absl::StrCat(Describe(entry.member), " was not heard of for ",
                            absl::FormatDuration(now - entry.heard)));
    expired.push_back(id);
  }
  for (const std::string& id : expired) Remove(id);
  const bool settles = !settled_ && now - started_ >= options_.settle_time;
  if (settles) {
    settled_ = true;
    ++version_;
  }
  return settles || !expired.empty();
}

uint64_t MemberRegistry::version() const {
  MutexLock lock(&mutex_);
  return version_;
}

fabric::ViewUpdate MemberRegistry::Since(uint64_t version) const {
  MutexLock lock(&mutex_);
  fabric::ViewUpdate update;
  update.version = version_;
  update.router_id = options_.router_id;
  update.complete = version == 0 || version < forgotten_;
  update.settled = settled_;
  update.heartbeat = options_.heartbeat;
  update.lease = options_.lease;
  for (const auto& [id, entry] : entries_) {
    if (update.complete || entry.version > version) {
      update.members.push_back(entry.member);
    }
  }
  for (const auto& [when, id] : removed_) {
    // One that left and came again is among the members.
    if (!update.complete && when > version && !entries_.contains(id)) {
      update.removed.push_back(id);
    }
  }
  return update;
}

std::vector<fabric::Member> MemberRegistry::members() const {
  MutexLock lock(&mutex_);
  std::vector<fabric::Member> members;
  for (const auto& [id, entry] : entries_) members.push_back(entry.member);
  return members;
}

void MemberRegistry::DecayHeat() {
  const absl::Time now = options_.clock->Now();
  const double factor =
      std::exp2(-absl::FDivDuration(now - heat_time_, options_.heat_half_life));
  for (double& rows : heat_) rows *= factor;
  heat_time_ = now;
}

void MemberRegistry::AddHeat(absl::Span<const uint32_t> rows) {
  if (static_cast<int64_t>(rows.size()) > fabric::kMaxMemberPairs) return;
  MutexLock lock(&mutex_);
  DecayHeat();
  if (heat_.size() != rows.size()) heat_.assign(rows.size(), 0);
  for (size_t i = 0; i < rows.size(); ++i) heat_[i] += rows[i];
}

std::vector<uint32_t> MemberRegistry::heat() const {
  MutexLock lock(&mutex_);
  const double factor = std::exp2(-absl::FDivDuration(
      options_.clock->Now() - heat_time_, options_.heat_half_life));
  std::vector<uint32_t> rows(heat_.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i] = static_cast<uint32_t>(std::min<double>(
        heat_[i] * factor, std::numeric_limits<uint32_t>::max()));
  }
  return rows;
}

}  // namespace switchyard::router

#include "attention_worker/core/state_transfers.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention_worker/state/snapshot_file.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {
namespace {

absl::Status GivenUp() {
  return absl::AbortedError(
      "running requests needed the memory of the state that came; try again "
      "later");
}

}  // namespace

absl::StatusOr<OutgoingState> StateTransfers::Find(const Prefix& prefix) {
  options_.load_from_disk(prefix);
  const PrefixCache::Match match = options_.cache->Find(prefix);
  if (match.snapshot.fixed == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("this worker keeps no state of a prefix of these ",
                     prefix.size(), " tokens"));
  }
  OutgoingState out;
  out.prefix = KeptPrefix(prefix.first(match.snapshot.num_tokens));
  out.fixed = match.snapshot.fixed;
  out.pages.assign(match.snapshot.pages.begin(), match.snapshot.pages.end());
  out.bytes =
      SnapshotStateBytes(options_.memory->shape(), match.snapshot.num_tokens);
  out.open = options_.open.lock();
  return out;
}

absl::StatusOr<OutgoingState> StateTransfers::HandOver(
    const std::string& request_id) {
  // A worker that drains goes when neither a request nor a transfer is left:
  // there is no moment without both.
  const std::shared_ptr<const void> open = options_.open.lock();
  SY_ASSIGN_OR_RETURN(const KeptPrefix kept, options_.end_request(request_id));
  return Find(kept.view());
}

StateTransfers::Place StateTransfers::PlaceOf(int64_t offset) const {
  const StateShape& shape = options_.memory->shape();
  if (offset < shape.FixedBytes()) return {0, 0, shape.FixedBytes()};
  const int64_t page = (offset - shape.FixedBytes()) / shape.PageBytes();
  return {page + 1, shape.FixedBytes() + page * shape.PageBytes(),
          shape.PageBytes()};
}

absl::Status StateTransfers::Read(const OutgoingState& state, int64_t offset,
                                  absl::Span<char> out) const {
  SY_CHECK(offset + static_cast<int64_t>(out.size()) <= state.bytes);
  while (!out.empty()) {
    const Place place = PlaceOf(offset);
    const StateBlock block =
        (place.block == 0 ? state.fixed
                          : state.pages[static_cast<size_t>(place.block - 1)])
            .lock();
    if (block == nullptr) {
      return absl::AbortedError(
          "running requests needed the memory of the state that was sent; try "
          "again");
    }
    const size_t size = static_cast<size_t>(std::min(
        place.begin + place.bytes - offset, static_cast<int64_t>(out.size())));
    std::memcpy(
        out.data(),
        reinterpret_cast<const char*>(block.get()) + (offset - place.begin),
        size);
    out.remove_prefix(size);
    offset += static_cast<int64_t>(size);
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> StateTransfers::Begin(const Prefix& prefix) {
  if (options_.cache->Contains(prefix)) {
    return absl::AlreadyExistsError("this worker keeps that state already");
  }
  const int64_t bytes =
      SnapshotStateBytes(options_.memory->shape(), prefix.size());
  if (bytes > options_.memory->budget_bytes()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the state of ", prefix.size(), " tokens takes ", bytes,
                     " bytes; this worker's memory for states is ",
                     options_.memory->budget_bytes()));
  }
  Incoming incoming;
  incoming.prefix = KeptPrefix(prefix);
  incoming.snapshot.num_tokens = prefix.size();
  incoming_.emplace(++last_number_, std::move(incoming));
  return last_number_;
}

absl::Status StateTransfers::Write(int64_t number, absl::string_view bytes) {
  const auto found = incoming_.find(number);
  if (found == incoming_.end()) return GivenUp();
  Incoming& incoming = found->second;
  const int64_t total = SnapshotStateBytes(options_.memory->shape(),
                                           incoming.snapshot.num_tokens);
  SY_CHECK(incoming.bytes + static_cast<int64_t>(bytes.size()) <= total);
  while (!bytes.empty()) {
    const Place place = PlaceOf(incoming.bytes);
    if (place.begin == incoming.bytes) {
      StateBlock block = Take(/*fixed=*/place.block == 0);
      if (block == nullptr) {
        incoming_.erase(found);
        return absl::ResourceExhaustedError(
            absl::StrCat("running requests leave no room for a state of ",
                         total, " bytes; this worker's memory for states is ",
                         options_.memory->budget_bytes()));
      }
      if (place.block == 0) {
        incoming.snapshot.fixed = std::move(block);
      } else {
        incoming.snapshot.pages.push_back(std::move(block));
      }
    }
    float* const block = place.block == 0
                             ? incoming.snapshot.fixed.get()
                             : incoming.snapshot.pages.back().get();
    const size_t size =
        static_cast<size_t>(std::min(place.begin + place.bytes - incoming.bytes,
                                     static_cast<int64_t>(bytes.size())));
    std::memcpy(reinterpret_cast<char*>(block) + (incoming.bytes - place.begin),
                bytes.data(), size);
    bytes.remove_prefix(size);
    incoming.bytes += static_cast<int64_t>(size);
  }
  return absl::OkStatus();
}

absl::Status StateTransfers::Commit(int64_t number) {
  const auto found = incoming_.find(number);
  if (found == incoming_.end()) return GivenUp();
  Incoming& incoming = found->second;
  SY_CHECK(incoming.bytes == SnapshotStateBytes(options_.memory->shape(),
                                                incoming.snapshot.num_tokens));
  options_.cache->Insert(incoming.prefix.view(), std::move(incoming.snapshot));
  incoming_.erase(found);
  return absl::OkStatus();
}

bool StateTransfers::EvictOne() {
  if (incoming_.empty()) return false;
  incoming_.erase(std::prev(incoming_.end()));
  return true;
}

StateBlock StateTransfers::Take(bool fixed) {
  while (true) {
    StateBlock block = fixed ? options_.memory->TryTakeFixed()
                             : options_.memory->TryTakePage();
    if (block != nullptr || !options_.cache->EvictOne()) return block;
  }
}

}  // namespace switchyard::attention_worker

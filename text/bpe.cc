#include "text/bpe.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include "base/check.h"

namespace switchyard::text {
namespace {

constexpr int32_t kNoRank = std::numeric_limits<int32_t>::max();
// Up to here looking at every pair again after each merge is faster than a
// heap.
constexpr size_t kShortWordBytes = 32;

}  // namespace

bool BpeMerges::AddMerge(int32_t left, int32_t right, int32_t merged,
                         int32_t rank) {
  return merges_.try_emplace(Pair(left, right), Merge{rank, merged}).second;
}

void BpeMerges::Encode(absl::string_view word, std::vector<int32_t>* ids,
                       int64_t* steps) const {
  // Positions and ranks are 32 bits wide.
  SY_CHECK(word.size() < static_cast<size_t>(kNoRank));
  if (word.size() <= kShortWordBytes) {
    EncodeShort(word, ids, steps);
  } else {
    EncodeLong(word, ids, steps);
  }
}

void BpeMerges::EncodeShort(absl::string_view word, std::vector<int32_t>* ids,
                            int64_t* steps) const {
  int32_t symbols[kShortWordBytes];
  int32_t ranks[kShortWordBytes];   // of the pair that begins here
  int32_t merged[kShortWordBytes];  // what that pair becomes
  size_t count = word.size();
  const auto look_up = [&](size_t i) {
    ++*steps;
    const Merge* merge =
        i + 1 < count ? Find(symbols[i], symbols[i + 1]) : nullptr;
    ranks[i] = merge == nullptr ? kNoRank : merge->rank;
    merged[i] = merge == nullptr ? -1 : merge->merged;
  };
  for (size_t i = 0; i < count; ++i) {
    symbols[i] = byte_ids_[static_cast<uint8_t>(word[i])];
  }
  for (size_t i = 0; i < count; ++i) look_up(i);
  while (count > 1) {
    const size_t best = std::min_element(ranks, ranks + count) - ranks;
    if (ranks[best] == kNoRank) break;
    symbols[best] = merged[best];
    std::copy(symbols + best + 2, symbols + count, symbols + best + 1);
    std::copy(ranks + best + 2, ranks + count, ranks + best + 1);
    std::copy(merged + best + 2, merged + count, merged + best + 1);
    --count;
    look_up(best);
    if (best > 0) look_up(best - 1);
  }
  ids->insert(ids->end(), symbols, symbols + count);
}

void BpeMerges::EncodeLong(absl::string_view word, std::vector<int32_t>* ids,
                           int64_t* steps) const {
  struct Symbol {
    int32_t id;
    int32_t previous;  // position, or -1
    int32_t next;      // position, or -1
    int32_t rank;      // of the pair with `next`, or kNoRank
  };
  const auto count = static_cast<int32_t>(word.size());
  std::vector<Symbol> symbols(count);
  // Rank above position: the smallest is the lowest rank, leftmost. An entry is
  // out of date when its position no longer begins a pair of that rank.
  std::vector<uint64_t> heap;
  const auto update = [&](int32_t position) {
    ++*steps;
    Symbol& symbol = symbols[position];
    const Merge* merge =
        symbol.next < 0 ? nullptr : Find(symbol.id, symbols[symbol.next].id);
    symbol.rank = merge == nullptr ? kNoRank : merge->rank;
    if (merge != nullptr) {
      heap.push_back(uint64_t{static_cast<uint32_t>(merge->rank)} << 32 |
                     static_cast<uint32_t>(position));
    }
    return merge != nullptr;
  };
  for (int32_t i = 0; i < count; ++i) {
    symbols[i] = {byte_ids_[static_cast<uint8_t>(word[i])], i - 1,
                  i + 1 < count ? i + 1 : -1, kNoRank};
  }
  for (int32_t i = 0; i < count; ++i) update(i);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t entry = heap.back();
    heap.pop_back();
    const auto position = static_cast<int32_t>(entry & 0xFFFFFFFFu);
    ++*steps;
    Symbol& symbol = symbols[position];
    if (symbol.rank != static_cast<int32_t>(entry >> 32)) continue;
    Symbol& gone = symbols[symbol.next];
    symbol.id = Find(symbol.id, gone.id)->merged;
    symbol.next = gone.next;
    if (gone.next >= 0) symbols[gone.next].previous = position;
    gone.rank = kNoRank;
    if (update(position)) {
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
    if (symbol.previous >= 0 && update(symbol.previous)) {
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  }
  for (int32_t i = 0; i >= 0 && i < count; i = symbols[i].next) {
    ids->push_back(symbols[i].id);
  }
}

}  // namespace switchyard::text

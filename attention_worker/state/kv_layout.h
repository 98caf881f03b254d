// Where K and V of one token lie in a page of the KV cache. The only place that
// knows.

#ifndef SWITCHYARD_ATTENTION_WORKER_STATE_KV_LAYOUT_H_
#define SWITCHYARD_ATTENTION_WORKER_STATE_KV_LAYOUT_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/kv_rows.h"

namespace switchyard::attention_worker {

// A page holds K and V of this many consecutive tokens, of every layer that has
// a KV cache.
inline constexpr int64_t kPageTokens = 64;

// [layer][K, V][KV head][kPageTokens] rows of kernels/kv_rows.h: what one head
// reads of a page is one piece. Offsets are bytes from the page's begin.
struct KvLayout {
  kernels::KvDType dtype = kernels::KvDType::kF32;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;

  int64_t RowBytes() const { return kernels::KvRowBytes(dtype, head_dim); }
  // One head's K or V. A multiple of kPageTokens, and so of a cache line.
  int64_t HeadBytes() const { return kPageTokens * RowBytes(); }
  int64_t LayerBytes() const { return 2 * num_kv_heads * HeadBytes(); }

  int64_t KeyInPage(int layer, int64_t head, int64_t token) const {
    return layer * LayerBytes() + head * HeadBytes() + token * RowBytes();
  }
  int64_t ValueInPage(int layer, int64_t head, int64_t token) const {
    return KeyInPage(layer, num_kv_heads + head, token);
  }
};

// What one layer keeps of one sequence; a view. `pages` are SequenceState's.
struct KvLayer {
  absl::Span<float* const> pages;
  KvLayout layout;
  int layer = 0;  // counted among those with a KV cache

  // The row of the token at `position`; those behind it in its page follow.
  uint8_t* KeyAt(int64_t position, int64_t head) const {
    return PageOf(position) +
           layout.KeyInPage(layer, head, position % kPageTokens);
  }
  uint8_t* ValueAt(int64_t position, int64_t head) const {
    return PageOf(position) +
           layout.ValueInPage(layer, head, position % kPageTokens);
  }

 private:
  uint8_t* PageOf(int64_t position) const {
    return reinterpret_cast<uint8_t*>(pages[position / kPageTokens]);
  }
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_STATE_KV_LAYOUT_H_

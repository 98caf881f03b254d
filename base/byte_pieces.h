// Bytes that lie in several pieces, as the network delivered them.

#ifndef SWITCHYARD_BASE_BYTE_PIECES_H_
#define SWITCHYARD_BASE_BYTE_PIECES_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace switchyard {

// A view of pieces, one after another, and whatever keeps them alive. Cheap to
// copy relative to the bytes. Unsynchronised.
class BytePieces {
 public:
  BytePieces() = default;
  // `owner` keeps the pieces alive; empty pieces are fine.
  BytePieces(std::vector<absl::Span<const char>> pieces,
             std::shared_ptr<const void> owner);
  // One piece, owned.
  explicit BytePieces(std::string bytes);

  size_t size() const { return ends_.empty() ? 0 : ends_.back(); }

  // Bytes [offset, offset + n). REQUIRES: offset + n <= size().
  void CopyTo(size_t offset, size_t n, void* to) const;
  BytePieces Part(size_t offset, size_t n) const;
  // Where they lie if they lie together; null if not, or if n is 0.
  const char* Together(size_t offset, size_t n) const;

 private:
  // The piece that has byte `offset`. REQUIRES: offset < size().
  size_t PieceOf(size_t offset) const;

  std::vector<absl::Span<const char>> pieces_;  // none is empty
  std::vector<size_t> ends_;                    // of each piece, in all bytes
  std::shared_ptr<const void> owner_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_BYTE_PIECES_H_

#include "base/byte_pieces.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace switchyard {

BytePieces::BytePieces(std::vector<absl::Span<const char>> pieces,
                       std::shared_ptr<const void> owner)
    : owner_(std::move(owner)) {
  pieces_.reserve(pieces.size());
  ends_.reserve(pieces.size());
  size_t end = 0;
  for (const absl::Span<const char> piece : pieces) {
    if (piece.empty()) continue;
    end += piece.size();
    pieces_.push_back(piece);
    ends_.push_back(end);
  }
}

BytePieces::BytePieces(std::string bytes) {
  auto owner = std::make_shared<const std::string>(std::move(bytes));
  if (!owner->empty()) {
    pieces_.emplace_back(owner->data(), owner->size());
    ends_.push_back(owner->size());
  }
  owner_ = std::move(owner);
}

size_t BytePieces::PieceOf(size_t offset) const {
  return static_cast<size_t>(
      std::upper_bound(ends_.begin(), ends_.end(), offset) - ends_.begin());
}

void BytePieces::CopyTo(size_t offset, size_t n, void* to) const {
  SY_CHECK(offset <= size() && n <= size() - offset);
  char* out = static_cast<char*>(to);
  while (n > 0) {
    const size_t i = PieceOf(offset);
    const size_t left = ends_[i] - offset;
    const size_t count = std::min(n, left);
    std::memcpy(out, pieces_[i].data() + (pieces_[i].size() - left), count);
    out += count;
    offset += count;
    n -= count;
  }
}

BytePieces BytePieces::Part(size_t offset, size_t n) const {
  SY_CHECK(offset <= size() && n <= size() - offset);
  std::vector<absl::Span<const char>> part;
  while (n > 0) {
    const size_t i = PieceOf(offset);
    const size_t left = ends_[i] - offset;
    const size_t count = std::min(n, left);
    part.push_back(pieces_[i].subspan(pieces_[i].size() - left, count));
    offset += count;
    n -= count;
  }
  return BytePieces(std::move(part), owner_);
}

const char* BytePieces::Together(size_t offset, size_t n) const {
  SY_CHECK(offset <= size() && n <= size() - offset);
  if (n == 0) return nullptr;
  const size_t i = PieceOf(offset);
  const size_t left = ends_[i] - offset;
  return n <= left ? pieces_[i].data() + (pieces_[i].size() - left) : nullptr;
}

}  // namespace switchyard

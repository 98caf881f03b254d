#include "base/byte_pieces.h"

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace switchyard {
namespace {

std::string All(const BytePieces& pieces) {
  std::string out(pieces.size(), '?');
  pieces.CopyTo(0, out.size(), out.data());
  return out;
}

// `text` cut at every length of `sizes` in turn.
BytePieces Cut(const std::string& text, const std::vector<size_t>& sizes) {
  auto owner = std::make_shared<std::string>(text);
  std::vector<absl::Span<const char>> pieces;
  size_t at = 0;
  for (size_t i = 0; at < text.size(); ++i) {
    const size_t n = std::min(sizes[i % sizes.size()], text.size() - at);
    pieces.emplace_back(owner->data() + at, n);
    at += n;
  }
  return BytePieces(std::move(pieces), owner);
}

TEST(BytePiecesTest, NothingIsEmpty) {
  EXPECT_EQ(BytePieces().size(), 0);
  EXPECT_EQ(All(BytePieces()), "");
  EXPECT_EQ(All(BytePieces(std::string())), "");
  EXPECT_EQ(All(BytePieces({{}, {}}, nullptr)), "");
  EXPECT_EQ(BytePieces().Together(0, 0), nullptr);
}

TEST(BytePiecesTest, EveryPartOfEveryCut) {
  const std::string text = "the quick brown fox";
  for (const std::vector<size_t>& sizes :
       {std::vector<size_t>{100}, {1}, {3, 1}, {2, 5, 7}}) {
    const BytePieces pieces = Cut(text, sizes);
    ASSERT_EQ(All(pieces), text);
    for (size_t begin = 0; begin <= text.size(); ++begin) {
      for (size_t n = 0; n <= text.size() - begin; ++n) {
        std::string copy(n, '?');
        pieces.CopyTo(begin, n, copy.data());
        ASSERT_EQ(copy, text.substr(begin, n));
        const BytePieces part = pieces.Part(begin, n);
        ASSERT_EQ(All(part), text.substr(begin, n));
        if (n >= 2) {
          ASSERT_EQ(All(part.Part(1, n - 2)), text.substr(begin + 1, n - 2));
        }
        const char* const together = pieces.Together(begin, n);
        if (together != nullptr) {
          ASSERT_EQ(std::string(together, n), text.substr(begin, n));
        }
      }
    }
  }
}

TEST(BytePiecesTest, TogetherOnlyWithinOnePiece) {
  const BytePieces pieces = Cut("abcdef", {3});
  EXPECT_NE(pieces.Together(0, 3), nullptr);
  EXPECT_NE(pieces.Together(4, 2), nullptr);
  EXPECT_EQ(pieces.Together(2, 2), nullptr);
}

TEST(BytePiecesTest, KeepsItsOwnerAlive) {
  auto owner = std::make_shared<std::string>("kept");
  const std::weak_ptr<std::string> watch = owner;
  BytePieces part;
  {
    const BytePieces whole({absl::MakeConstSpan(*owner)}, owner);
    owner = nullptr;
    part = whole.Part(1, 2);
  }
  EXPECT_FALSE(watch.expired());
  EXPECT_EQ(All(part), "ep");
  part = BytePieces();
  EXPECT_TRUE(watch.expired());
}

}  // namespace
}  // namespace switchyard

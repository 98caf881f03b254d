#include "model/weight_copies.h"

#include <cstring>
#include <memory>
#include <utility>

#include "base/compute_pool.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/weight_names.h"
#include "model/weight_values.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"

namespace switchyard::model {
namespace {

using ::switchyard::testing::FixturePath;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::HasSubstr;

std::unique_ptr<Checkpoint> OpenFixture() {
  auto checkpoint = Checkpoint::Open(FixturePath("tiny_a_bf16"));
  EXPECT_THAT(checkpoint, IsOk());
  return *std::move(checkpoint);
}

TEST(WeightCopiesTest, CopiesAreEqualAlignedAndOnce) {
  const auto checkpoint = OpenFixture();
  const auto embedding = checkpoint->Find(kEmbeddingName);
  const auto expert = checkpoint->FindExpert(0, 3);
  ASSERT_THAT(embedding, IsOk());
  ASSERT_THAT(expert, IsOk());
  auto created = WeightCopies::Create(
      checkpoint.get(),
      WeightCopies::RoomFor(WeightBytes(*embedding)) +
          WeightCopies::RoomFor(WeightBytes(expert->up_proj)));
  ASSERT_THAT(created, IsOk());
  const auto copies = *std::move(created);
  const kernels::WeightView first = copies->Place(*embedding);
  const kernels::WeightView second = copies->Place(expert->up_proj);
  EXPECT_EQ(copies->Place(*embedding).data, first.data);
  EXPECT_EQ(copies->bytes(),
            WeightCopies::RoomFor(WeightBytes(*embedding)) +
                WeightCopies::RoomFor(WeightBytes(expert->up_proj)));
  const auto pool = NewThreadPool(2, "test");
  ASSERT_THAT(copies->Allocate(pool.get()), IsOk());
  for (const auto& [source, copy] :
       {std::pair(*embedding, first), {expert->up_proj, second}}) {
    copies->Copy(source, copy);
    EXPECT_NE(source.data, copy.data);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(copy.data) % 64, 0u);
    EXPECT_EQ(copy.rows, source.rows);
    EXPECT_EQ(copy.cols, source.cols);
    EXPECT_EQ(copy.dtype, source.dtype);
    EXPECT_EQ(std::memcmp(copy.data, source.data, WeightBytes(source)), 0);
  }
}

TEST(WeightCopiesTest, Placements) {
  const auto checkpoint = OpenFixture();  // not a converted one
  for (const auto& [text, copied] :
       {std::pair("auto", false), {"copy", true}, {"map", false}}) {
    const auto placement = ParseWeightPlacement(text);
    ASSERT_THAT(placement, IsOk());
    EXPECT_EQ(CopiesWeights(*placement, *checkpoint), copied) << text;
  }
  EXPECT_THAT(ParseWeightPlacement("Copy"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("auto, copy or map")));
}

}  // namespace
}  // namespace switchyard::model

#include "attention_worker/layers/scratch.h"

#include <algorithm>
#include <cstdint>

#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

TEST(ScratchTest, ArraysAreAlignedAndApart) {
  Scratch scratch;
  const Scratch::Frame frame(&scratch);
  float* const a = scratch.Floats(3);
  float* const b = scratch.Floats(100000);  // more than a block
  float* const c = scratch.Floats(1);
  EXPECT_EQ(scratch.Floats(0) == nullptr, false);
  for (float* p : {a, b, c}) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % 64, 0u);
  }
  std::fill_n(a, 3, 1.0f);
  std::fill_n(b, 100000, 2.0f);
  *c = 3;
  EXPECT_EQ(a[2], 1);
  EXPECT_EQ(b[0], 2);
  EXPECT_EQ(b[99999], 2);
  EXPECT_EQ(*c, 3);
}

TEST(ScratchTest, FramesGiveBack) {
  Scratch scratch;
  const Scratch::Frame outer(&scratch);
  float* const kept = scratch.Floats(10);
  *kept = 7;
  float* first = nullptr;
  for (int i = 0; i < 3; ++i) {
    const Scratch::Frame inner(&scratch);
    float* const p = scratch.Floats(50);
    if (i == 0) first = p;
    EXPECT_EQ(p, first);
    EXPECT_NE(p, kept);
  }
  EXPECT_EQ(*kept, 7);
}

TEST(ScratchTest, MemoryStopsGrowing) {
  Scratch scratch;
  int64_t bytes = 0;
  for (int step = 0; step < 5; ++step) {
    const Scratch::Frame frame(&scratch);
    scratch.Floats(200000);
    {
      const Scratch::Frame inner(&scratch);
      scratch.Floats(300000);
    }
    scratch.Floats(250000);
    if (step == 1) bytes = scratch.allocated_bytes();
    if (step > 1) {
      EXPECT_EQ(scratch.allocated_bytes(), bytes);
    }
  }
  EXPECT_EQ(bytes, 500000 * 4);  // the most that was taken at a time
}

}  // namespace
}  // namespace switchyard::attention_worker

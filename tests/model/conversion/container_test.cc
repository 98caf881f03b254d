#include "model/conversion/container.h"

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/safetensors.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::model {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;
using testing::TempDir;

absl::Span<const uint8_t> Bytes(const std::string& text) {
  return absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(text.data()),
                             text.size());
}

// Sizes of every remainder, none at all, and beyond a page.
TEST(Container, IsASafetensorsFileWithAlignedTensors) {
  std::vector<ContainerTensor> tensors;
  for (const int64_t bytes : {2, 64, 62, 0, 130, 5000, 64, 8}) {
    tensors.push_back(
        {absl::StrCat("t", tensors.size()), "BF16", {bytes / 2}, bytes});
  }
  const ContainerPlan plan = PlanContainer(tensors);
  ASSERT_EQ(plan.tensors.size(), tensors.size());
  TempDir dir;
  {
    auto file = OutputFile::Create(dir.File("f.safetensors"), plan.file_bytes);
    ASSERT_THAT(file, IsOk());
    ASSERT_THAT((*file)->Write(0, Bytes(plan.header)), IsOk());
    // Out of order.
    for (size_t i = tensors.size(); i-- > 0;) {
      const std::string content(tensors[i].bytes, static_cast<char>('a' + i));
      ASSERT_THAT((*file)->Write(plan.tensors[i].offset, Bytes(content)),
                  IsOk());
    }
    EXPECT_FALSE(std::filesystem::exists(dir.File("f.safetensors")));
    ASSERT_THAT((*file)->Finish(), IsOk());
  }
  EXPECT_FALSE(std::filesystem::exists(dir.File("f.safetensors.partial")));
  const auto file = SafetensorsFile::Open(dir.File("f.safetensors"));
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ((*file)->bytes().size(), static_cast<size_t>(plan.file_bytes));
  EXPECT_EQ(plan.header.size() % 4096, 0u);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const SafetensorsTensor* const found = (*file)->Find(tensors[i].name);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->begin % 64, 0);
    EXPECT_EQ(found->begin, plan.tensors[i].offset);
    const absl::Span<const uint8_t> bytes = (*file)->bytes(*found);
    EXPECT_EQ(std::string(bytes.begin(), bytes.end()),
              std::string(tensors[i].bytes, static_cast<char>('a' + i)));
  }
  for (const auto& [name, tensor] : (*file)->tensors()) {
    if (absl::StartsWith(name, "padding.")) {
      EXPECT_LT(tensor.end - tensor.begin, 64);
    }
  }
}

TEST(Container, AnUnfinishedFileGoesAway) {
  TempDir dir;
  dir.Write("f", "old");
  {
    const auto file = OutputFile::Create(dir.File("f"), 0);
    ASSERT_THAT(file, IsOk());
    ASSERT_THAT((*file)->Write(0, Bytes("new")), IsOk());
  }
  EXPECT_EQ(ReadFile(dir.File("f"), 10).value(), "old");
  EXPECT_FALSE(std::filesystem::exists(dir.File("f.partial")));
  ASSERT_THAT(WriteWholeFile(dir.File("f"), "new"), IsOk());
  EXPECT_EQ(ReadFile(dir.File("f"), 10).value(), "new");
}

TEST(Container, ErrorsNameThePath) {
  TempDir dir;
  EXPECT_THAT(OutputFile::Create(dir.File("none/f"), 0),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr(dir.File("none/f.partial"))));
  EXPECT_THAT(SyncDirectory(dir.File("none")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
}

}  // namespace
}  // namespace switchyard::model

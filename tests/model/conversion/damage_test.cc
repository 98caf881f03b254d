// What is found when a converted checkpoint was damaged, or its manifest lies.

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/compute_pool.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "model/conversion/verify.h"
#include "model/manifest.h"
#include "model/safetensors.h"
#include "model/weight_names.h"
#include "tests/model/conversion/conversion_case.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::model {
namespace {

using kernels::DType;
using ::testing::AllOf;
using testing::FixturePath;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;
using testing::TempDir;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class Damage : public ::testing::Test {
 protected:
  Damage() {
    EXPECT_THAT(Convert(FixturePath("tiny_b_fp32"), out(), "q4-q8"), IsOk());
  }
  std::string out() const { return dir_.File("out"); }
  std::string File(const std::string& name) const {
    return absl::StrCat(out(), "/", name);
  }
  void Flip(const std::string& file, int64_t at) {
    std::string bytes = ReadFile(File(file), 1 << 30).value();
    bytes[at] ^= 0x10;
    dir_.Write("out/" + file, bytes);
  }

  TempDir dir_;
};

TEST_F(Damage, AFlippedBitIsFoundByItsName) {
  InlinePool pool;
  int flips = 0;
  for (const auto& entry : std::filesystem::directory_iterator(out())) {
    const std::string file = entry.path().filename().string();
    if (!absl::EndsWith(file, ".safetensors")) continue;
    const auto opened = SafetensorsFile::Open(File(file));
    ASSERT_THAT(opened, IsOk());
    // Some of each file, the last byte of every one.
    int skip = 0;
    for (const auto& [name, tensor] : (*opened)->tensors()) {
      if (absl::StartsWith(name, "padding.") || skip++ % 9 != 0) continue;
      for (const int64_t at : {tensor.begin, tensor.end - 1}) {
        Flip(file, at);
        const auto report = VerifyCheckpoint(out(), &pool, {});
        ASSERT_THAT(report, IsOk());
        ASSERT_EQ(report->damaged.size(), 1u) << name;
        EXPECT_THAT(report->damaged[0],
                    AllOf(HasSubstr(File(file)), HasSubstr(name + " is"),
                          HasSubstr("SHA-256"), HasSubstr("again")));
        Flip(file, at);
        ++flips;
      }
    }
  }
  EXPECT_GT(flips, 20);
  const auto report = VerifyCheckpoint(out(), &pool, {});
  ASSERT_THAT(report, IsOk());
  EXPECT_TRUE(report->damaged.empty());
  EXPECT_GT(report->num_checked, 0);
}

TEST_F(Damage, VerifyWhileLoading) {
  Flip("experts-00001.safetensors", 4096 + 100);
  const auto checkpoint = Open(out());
  EXPECT_THAT(checkpoint->VerifyExpert(1, 0),
              StatusIs(kDataLoss, HasSubstr("experts-00001.safetensors")));
  EXPECT_THAT(checkpoint->VerifyExpert(1, 1), IsOk());
  EXPECT_THAT(checkpoint->VerifyTensor("no.such.tensor"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no.such")));
}

TEST_F(Damage, CutAndMissingFiles) {
  const std::string file = "experts-00003.safetensors";
  const std::string bytes = ReadFile(File(file), 1 << 30).value();
  dir_.Write("out/" + file, bytes.substr(0, bytes.size() - 1));
  EXPECT_THAT(Checkpoint::Open(out()),
              StatusIs(kInvalid, AllOf(HasSubstr(file), HasSubstr("cut"))));
  std::filesystem::remove(File(file));
  EXPECT_THAT(Checkpoint::Open(out()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(file)));
  // Another layer's experts in its place: the names differ.
  std::filesystem::copy(File("experts-00001.safetensors"), File(file));
  EXPECT_THAT(Checkpoint::Open(out()),
              StatusIs(kInvalid, HasSubstr("does not hold")));
}

// Manifests that contradict the files, each with a digest of its own.
TEST_F(Damage, LyingManifests) {
  const Manifest good =
      ParseManifest(ReadFile(File(kManifestFile), 1 << 30).value()).value();
  const auto open_with = [&](const std::function<void(Manifest*)>& change) {
    Manifest manifest = good;
    change(&manifest);
    dir_.Write(absl::StrCat("out/", kManifestFile),
               SerializeManifest(manifest));
    return Checkpoint::Open(out()).status();
  };
  const auto tensor = [](Manifest* manifest,
                         const std::string& name) -> Manifest::Tensor& {
    return *std::find_if(manifest->tensors.begin(), manifest->tensors.end(),
                         [&](const auto& t) { return t.name == name; });
  };
  EXPECT_THAT(open_with([](Manifest*) {}), IsOk());
  EXPECT_THAT(open_with([](Manifest* m) { m->tensors.pop_back(); }),
              StatusIs(kInvalid, HasSubstr("is missing")));
  EXPECT_THAT(open_with([](Manifest* m) {
                m->tensors.push_back(m->tensors[0]);
                m->tensors.back().name = "more";
              }),
              StatusIs(kInvalid, HasSubstr("more is listed")));
  EXPECT_THAT(open_with([&](Manifest* m) {
                tensor(m, "model.norm.weight").shape = {1, 2};
              }),
              StatusIs(kInvalid, HasSubstr("calls for")));
  EXPECT_THAT(open_with([&](Manifest* m) {
                tensor(m, "model.norm.weight").dtype = DType::kBF16;
              }),
              StatusIs(kInvalid, HasSubstr("has it as F32")));
  EXPECT_THAT(open_with([&](Manifest* m) {
                tensor(m, kEmbeddingName).dtype = DType::kQ8;
              }),
              StatusIs(kInvalid, HasSubstr("must keep its source's dtype")));
  EXPECT_THAT(open_with([&](Manifest* m) {
                tensor(m, kEmbeddingName).dtype = DType::kBF16Dot;
              }),
              StatusIs(kInvalid, HasSubstr("must keep its source's dtype")));
  EXPECT_THAT(open_with([&](Manifest* m) {
                tensor(m, kLmHeadName).dtype = DType::kQ4;
              }),
              StatusIs(kInvalid, HasSubstr("bytes of U8")));
  EXPECT_THAT(open_with([&](Manifest* m) {
                tensor(m, kLmHeadName).file = "experts-00001.safetensors";
              }),
              StatusIs(kInvalid, HasSubstr("does not hold")));
  EXPECT_THAT(open_with([&](Manifest* m) {
                tensor(m, kLmHeadName).file = "config.json";
              }),
              StatusIs(kInvalid, HasSubstr("config.json")));
  EXPECT_THAT(open_with([](Manifest* m) { m->expert_dtype = DType::kQ8; }),
              StatusIs(kInvalid, HasSubstr("are expected")));
  EXPECT_THAT(open_with([](Manifest* m) { m->expert_layers.pop_back(); }),
              StatusIs(kInvalid, HasSubstr("are missing")));
  EXPECT_THAT(
      open_with([](Manifest* m) { m->expert_layers[0].sha256.pop_back(); }),
      StatusIs(kInvalid, HasSubstr("experts; config.json says")));
  EXPECT_THAT(open_with([](Manifest* m) {
                m->expert_layers.push_back(m->expert_layers.back());
                m->expert_layers.back().layer = 1000;
              }),
              StatusIs(kInvalid, HasSubstr("layer 1000")));
}

}  // namespace
}  // namespace switchyard::model

#include "model/manifest.h"

#include <functional>
#include <string>

#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard::model {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kDataLoss = absl::StatusCode::kDataLoss;

Manifest Example() {
  const std::string a(64, 'a');
  const std::string b(64, '7');
  Manifest manifest;
  manifest.tool_version = "1.2";
  manifest.source_fingerprint = b;
  manifest.source_dtype = "BF16";
  manifest.formats = {WeightFormat::kQ4, WeightFormat::kQ8,
                      WeightFormat::kSource};
  manifest.tensors = {
      {"lm_head.weight", "dense.safetensors", kernels::DType::kQ8, {9, 4}, a},
      {"model.norm.weight", "dense.safetensors", kernels::DType::kF16, {4}, b}};
  manifest.expert_dtype = kernels::DType::kQ4;
  manifest.expert_layers = {{0, "e0", {a, b}}, {2, "e2", {b, b}}};
  return manifest;
}

TEST(Manifest, RoundTrip) {
  const std::string text = SerializeManifest(Example());
  const auto parsed = ParseManifest(text);
  ASSERT_THAT(parsed, IsOk());
  EXPECT_EQ(*parsed, Example());
  EXPECT_EQ(SerializeManifest(*parsed), text);
}

TEST(Manifest, TheDigestIsOverWhatTheWeightsAre) {
  const std::string original = ManifestDigest(Example());
  const auto with = [](const std::function<void(Manifest*)>& change) {
    Manifest manifest = Example();
    change(&manifest);
    return ManifestDigest(manifest);
  };
  EXPECT_EQ(with([](Manifest* m) { m->tool_version = "2"; }), original);
  EXPECT_EQ(with([](Manifest* m) { m->tensors[0].file = "x"; }), original);
  EXPECT_EQ(with([](Manifest* m) { m->expert_layers[0].file = "x"; }),
            original);
  const std::function<void(Manifest*)> changes[] = {
      [](Manifest* m) { m->source_fingerprint[3] = '8'; },
      [](Manifest* m) { m->source_dtype = "F32"; },
      [](Manifest* m) { m->formats.dense = WeightFormat::kQ4; },
      [](Manifest* m) { m->tensors[1].name += "s"; },
      [](Manifest* m) { m->tensors[1].dtype = kernels::DType::kBF16; },
      [](Manifest* m) {
        m->tensors[0].shape = {4, 9};
      },
      [](Manifest* m) { m->tensors[0].sha256[63] = 'b'; },
      [](Manifest* m) { m->expert_dtype = kernels::DType::kQ8; },
      [](Manifest* m) { m->expert_layers[1].layer = 3; },
      [](Manifest* m) { m->expert_layers[1].sha256[1][0] = '0'; },
      [](Manifest* m) { m->expert_layers.pop_back(); }};
  for (const auto& change : changes) EXPECT_NE(with(change), original);
}

TEST(Manifest, WrongFields) {
  const Json good = ParseJson(SerializeManifest(Example())).value();
  const auto status_with = [&](const std::function<void(Json*)>& change) {
    Json json = good;
    change(&json);
    return ParseManifest(DumpJson(json)).status();
  };
  EXPECT_THAT(status_with([](Json*) {}), IsOk());
  const struct {
    std::function<void(Json*)> change;
    const char* message;
  } cases[] = {
      {[](Json* j) { (*j)["version"] = 2; }, "this program reads"},
      {[](Json* j) { (*j)["format"] = "gguf"; }, "this program reads"},
      {[](Json* j) { j->erase("format"); }, "format is missing"},
      {[](Json* j) { (*j)["version"] = "1"; }, "version is"},
      {[](Json* j) { j->erase("digest"); }, "digest is missing"},
      {[](Json* j) { (*j)["digest"] = "abc"; }, "64 lower-case"},
      {[](Json* j) { (*j)["source"] = 3; }, "source is not an object"},
      {[](Json* j) { (*j)["source"]["fingerprint"] = std::string(64, 'A'); },
       "source.fingerprint is not"},
      {[](Json* j) { (*j)["source"].erase("dtype"); },
       "source.dtype is missing"},
      {[](Json* j) { (*j)["source"]["dtype"] = std::string(300, 'x'); },
       "too long"},
      {[](Json* j) { (*j)["formats"]["dense"] = "q5"; }, "formats.dense"},
      {[](Json* j) { (*j)["formats"].erase("lm_head"); }, "formats.lm_head"},
      {[](Json* j) { (*j)["tensors"] = Json::object(); },
       "tensors is not a list"},
      {[](Json* j) { (*j)["tensors"][1] = 1; }, "tensors[1] is not an object"},
      {[](Json* j) { (*j)["tensors"][1]["name"] = "lm_head.weight"; },
       "there twice"},
      {[](Json* j) { (*j)["tensors"][0]["file"] = "../etc/passwd"; },
       "without folders"},
      {[](Json* j) { (*j)["tensors"][0]["file"] = ".."; }, "without folders"},
      {[](Json* j) { (*j)["tensors"][0]["file"] = std::string("a\0b", 3); },
       "without folders"},
      {[](Json* j) { (*j)["tensors"][0]["dtype"] = "I8"; }, "tensors[0].dtype"},
      {[](Json* j) { (*j)["tensors"][0]["shape"] = Json::array(); },
       "no list of dimensions"},
      {[](Json* j) {
         (*j)["tensors"][0]["shape"] = {1 << 20, -1};
       },
       "tensors[0].shape"},
      {[](Json* j) { (*j)["tensors"][0]["shape"][0] = int64_t{1} << 41; },
       "tensors[0].shape"},
      {[](Json* j) { (*j)["tensors"][0]["sha256"] = 5; }, "tensors[0].sha256"},
      {[](Json* j) { (*j)["experts"]["dtype"] = nullptr; },
       "experts.dtype is missing"},
      {[](Json* j) { (*j)["experts"]["layers"][1]["layer"] = 0; }, "not above"},
      {[](Json* j) { (*j)["experts"]["layers"][1]["layer"] = -1; },
       "layer is -1"},
      {[](Json* j) { (*j)["experts"]["layers"][0]["sha256"][1] = "x"; },
       "sha256[1]"},
      {[](Json* j) { (*j)["experts"]["layers"][0]["sha256"] = "x"; },
       "is not a list"},
      {[](Json* j) { (*j)["experts"]["layers"][0].erase("file"); },
       "file is missing"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(status_with(c.change),
                StatusIs(kInvalid, HasSubstr(c.message)));
  }
  // Plausible, but not what was written.
  EXPECT_THAT(status_with([](Json* j) {
                (*j)["tensors"][0]["shape"] = {4, 9};
              }),
              StatusIs(kDataLoss, HasSubstr("digest")));
  for (const char* text : {"", "[]", "{", "null"}) {
    EXPECT_THAT(ParseManifest(text), StatusIs(kDataLoss, HasSubstr("damaged")));
  }
}

}  // namespace
}  // namespace switchyard::model

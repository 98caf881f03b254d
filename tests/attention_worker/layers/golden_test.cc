// The product and the reference twin against HF Transformers: every array of
// the fixtures' golden.safetensors (tests/fixtures/README.md).

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "attention_worker/layers/rope_table.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/safetensors.h"
#include "tests/attention_worker/layers/test_model.h"
#include "tests/reference/reference_model.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::FixturePath;
using ::switchyard::testing::ReferenceMtpRun;
using ::switchyard::testing::ReferenceRun;
using ::switchyard::testing::Rows;

constexpr double kTolerance = 1e-4;  // absolute; values are of order 1 to 8

class Golden {
 public:
  explicit Golden(const std::string& fixture) {
    auto file = model::SafetensorsFile::Open(FixturePath(fixture) +
                                             "/golden.safetensors");
    EXPECT_TRUE(file.ok()) << file.status();
    if (file.ok()) file_ = *std::move(file);
  }
  bool Has(const std::string& name) const {
    return file_->Find(name) != nullptr;
  }
  std::vector<float> Floats(const std::string& name) const {
    auto values = file_->ReadFloats(name);
    EXPECT_TRUE(values.ok()) << values.status();
    return values.ok() ? *values : std::vector<float>();
  }
  std::vector<int32_t> Ints(const std::string& name) const {
    auto values = file_->ReadInt32s(name);
    EXPECT_TRUE(values.ok()) << values.status();
    return values.ok() ? *values : std::vector<int32_t>();
  }

 private:
  std::unique_ptr<model::SafetensorsFile> file_;
};

std::vector<float> Flatten(const Rows& rows) {
  std::vector<float> flat;
  for (const auto& row : rows) flat.insert(flat.end(), row.begin(), row.end());
  return flat;
}

// Rows [T, heads, D] as [heads, T, D].
std::vector<float> HeadsFirst(absl::Span<const float> rows, int64_t heads,
                              int64_t d) {
  const int64_t tokens = static_cast<int64_t>(rows.size()) / (heads * d);
  std::vector<float> result;
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t t = 0; t < tokens; ++t) {
      const float* const head = rows.data() + (t * heads + h) * d;
      result.insert(result.end(), head, head + d);
    }
  }
  return result;
}

// [rows, cols] as [cols, rows].
std::vector<float> Transpose(absl::Span<const float> values, int64_t rows,
                             int64_t cols) {
  std::vector<float> result;
  for (int64_t c = 0; c < cols; ++c) {
    for (int64_t r = 0; r < rows; ++r) result.push_back(values[r * cols + c]);
  }
  return result;
}

class GoldenTest : public ::testing::TestWithParam<const char*> {
 protected:
  static std::string Directory() { return FixturePath(GetParam()); }

  void ExpectClose(absl::Span<const float> actual,
                   const std::string& name) const {
    const std::vector<float> expected = golden_.Floats(name);
    ASSERT_FALSE(expected.empty());
    const double difference = MaxDifference(actual, expected);
    EXPECT_LE(difference, kTolerance) << name;
    EXPECT_LE(difference, 1e-3 * MaxAbs(expected)) << name;
    RecordProperty(name, absl::StrCat(difference));
  }

  const Golden golden_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Fixtures, GoldenTest,
                         ::testing::Values("tiny_a_bf16", "tiny_b_fp32",
                                           "tiny_a_yarn"),
                         [](const auto& info) {
                           return std::string(info.param);
                         });

// Of the fixtures that have everything.
class FullGoldenTest : public GoldenTest {};

INSTANTIATE_TEST_SUITE_P(Fixtures, FullGoldenTest,
                         ::testing::Values("tiny_a_bf16", "tiny_b_fp32"),
                         [](const auto& info) {
                           return std::string(info.param);
                         });

TEST_P(GoldenTest, RopeFrequencies) {
  TestModel model(Directory());
  RopeTable rope = RopeTable::ForConfig(model.config());
  const std::vector<float> inv_freq = golden_.Floats("rope.inv_freq");
  ASSERT_EQ(rope.half_dim(), static_cast<int64_t>(inv_freq.size()));
  auto file = MappedFile::Open(Directory() + "/golden.json");
  ASSERT_THAT(file, switchyard::testing::IsOk());
  const auto json = ParseJson(
      absl::string_view(reinterpret_cast<const char*>((*file)->bytes().data()),
                        (*file)->bytes().size()));
  ASSERT_THAT(json, switchyard::testing::IsOk());
  const double factor = (*json)["rope_attention_factor"].get<double>();
  LayerSequence sequence;
  sequence.num_rows = 3;
  sequence.first_position = 200;
  rope.SetRows(absl::MakeConstSpan(&sequence, 1), 3);
  for (int64_t t = 0; t < 3; ++t) {
    for (size_t i = 0; i < inv_freq.size(); ++i) {
      const float angle = static_cast<float>(200 + t) * inv_freq[i];
      EXPECT_NEAR(rope.cos(t)[i], factor * std::cos(double{angle}), 2e-6);
      EXPECT_NEAR(rope.sin(t)[i], factor * std::sin(double{angle}), 2e-6);
    }
  }
}

TEST_P(GoldenTest, PrefillLogitsAndFinalHidden) {
  for (int length : {1, 7, 64, 65, 200}) {
    const std::string prefix = absl::StrCat("len", length, ".");
    TestModel model(Directory(), {.probe = true});
    const std::vector<int32_t> ids = golden_.Ints(prefix + "input_ids");
    ASSERT_EQ(static_cast<int>(ids.size()), length);
    const auto state = model.NewState();
    ExpectClose(model.Run(state.get(), ids), prefix + "logits");
    if (golden_.Has(prefix + "final_hidden")) {
      ExpectClose(
          model.probed[{"final_hidden", model.config().num_hidden_layers}],
          prefix + "final_hidden");
    }
  }
}

TEST_P(GoldenTest, ResidualStreamAndRouters) {
  TestModel model(Directory(), {.probe = true});
  const auto state = model.NewState();
  model.Run(state.get(), golden_.Ints("len65.input_ids"));
  if (golden_.Has("len65.hidden_states")) {
    std::vector<float> hidden = model.probed[{"embedding", 0}];
    for (int i = 0; i < model.config().num_hidden_layers; ++i) {
      const std::vector<float>& layer = model.probed[{"layer", i}];
      hidden.insert(hidden.end(), layer.begin(), layer.end());
    }
    ExpectClose(hidden, "len65.hidden_states");
  }
  int first = -1, last = -1;
  for (int i = 0; i < model.config().num_hidden_layers; ++i) {
    if (!model.config().is_moe[i]) continue;
    if (first < 0) first = i;
    last = i;
  }
  for (const auto& [name, layer] :
       {std::pair<std::string, int>("first", first), {"last", last}}) {
    const std::string prefix = absl::StrCat("len65.router.", name, ".");
    ExpectClose(model.probed[{"gate_logits", layer}], prefix + "logits");
    ExpectClose(model.probed[{"gate_weights", layer}], prefix + "weights");
    const std::vector<float>& indices = model.probed[{"gate_indices", layer}];
    EXPECT_EQ(std::vector<int32_t>(indices.begin(), indices.end()),
              golden_.Ints(prefix + "indices"));
  }
}

TEST_P(FullGoldenTest, OutputsOfBlocks) {
  TestModel model(Directory(), {.probe = true});
  const auto state = model.NewState();
  model.Run(state.get(), golden_.Ints("len7.input_ids"));
  for (const std::string point : {"mixer_out", "mlp_out"}) {
    std::vector<float> all;
    for (int i = 0; i < model.config().num_hidden_layers; ++i) {
      const std::vector<float>& out = model.probed[{point, i}];
      all.insert(all.end(), out.begin(), out.end());
    }
    ExpectClose(all, "len7." + point);
  }
}

TEST_P(GoldenTest, DecodeAndStates) {
  TestModel model(Directory());
  const std::vector<int32_t> ids = golden_.Ints("len65.input_ids");
  const auto state = model.NewState();
  model.Run(state.get(), absl::MakeConstSpan(ids).first(7));
  std::vector<float> logits;
  for (size_t t = 7; t < ids.size(); ++t) {
    const std::vector<float> row =
        model.Run(state.get(), absl::MakeConstSpan(ids).subspan(t, 1));
    logits.insert(logits.end(), row.begin(), row.end());
  }
  ExpectClose(logits, "len65.decode_logits");
  EXPECT_EQ(state->num_tokens, 65);

  const model::ModelConfig& config = model.config();
  const StateShape shape(config);
  std::vector<float> k, v, recurrent, conv;
  const auto append = [](const std::vector<float>& from,
                         std::vector<float>* to) {
    to->insert(to->end(), from.begin(), from.end());
  };
  for (int i = 0; i < shape.num_full_layers; ++i) {
    const auto heads_first = [&](const std::vector<float>& rows) {
      return HeadsFirst(rows, config.num_key_value_heads, config.head_dim);
    };
    const KvLayer kv = {state->pages(), shape.kv, i};
    append(heads_first(CachedKeys(kv, 65)), &k);
    append(heads_first(CachedValues(kv, 65)), &v);
  }
  const int64_t taps = config.linear_conv_kernel_dim;
  for (int i = 0; i < shape.num_linear_layers; ++i) {
    const float* const s = state->recurrent(i);
    recurrent.insert(recurrent.end(), s, s + shape.recurrent_floats);
    append(
        Transpose(absl::MakeConstSpan(state->conv_tail(i), shape.conv_floats),
                  taps - 1, shape.conv_floats / (taps - 1)),
        &conv);
  }
  ExpectClose(k, "len65.state.k");
  ExpectClose(v, "len65.state.v");
  ExpectClose(recurrent, "len65.state.recurrent");
  ExpectClose(conv, "len65.state.conv");
}

TEST_P(GoldenTest, GreedyContinuation) {
  for (const std::string prefix : {"len7.", "len65."}) {
    TestModel model(Directory());
    const std::vector<int32_t> expected = golden_.Ints(prefix + "greedy_ids");
    ASSERT_EQ(expected.size(), 32u);
    const size_t vocab = model.config().vocab_size;
    const auto state = model.NewState();
    std::vector<int32_t> next = golden_.Ints(prefix + "input_ids");
    std::vector<int32_t> ids;
    std::vector<float> chosen_from;
    while (ids.size() < expected.size()) {
      const std::vector<float> logits = model.Run(state.get(), next);
      const absl::Span<const float> last =
          absl::MakeConstSpan(logits).last(vocab);
      chosen_from.insert(chosen_from.end(), last.begin(), last.end());
      next = {ArgMax(last)};
      ids.push_back(next[0]);
    }
    EXPECT_EQ(ids, expected) << prefix;
    chosen_from.resize(golden_.Floats(prefix + "greedy_logits").size());
    ExpectClose(chosen_from, prefix + "greedy_logits");
  }
}

// The pairs of the fixtures' MTP pass: (final_hidden[i], token i + 1), the last
// token the first greedy one.
std::vector<int32_t> NextTokens(const Golden& golden) {
  std::vector<int32_t> next = golden.Ints("len65.input_ids");
  next.erase(next.begin());
  next.push_back(golden.Ints("len65.greedy_ids")[0]);
  return next;
}

TEST_P(FullGoldenTest, MtpHeadAndChainedDrafts) {
  TestModel model(Directory());
  const std::vector<int32_t> ids = golden_.Ints("len65.input_ids");
  const auto state = model.NewState();
  const SequenceChunk chunk{.state = state.get(),
                            .tokens = ids,
                            .logits = LogitsOf::kNothing,
                            .want_hidden = true};
  const ChunkResult result = model.runner().Step({&chunk, 1})[0];
  ASSERT_THAT(result.status, switchyard::testing::IsOk());
  EXPECT_TRUE(result.logits.empty());

  const auto mtp_state = model.NewState();
  const std::vector<int32_t> next_tokens = NextTokens(golden_);
  const MtpChunk pairs{.state = mtp_state.get(),
                       .hidden = result.hidden,
                       .next_tokens = next_tokens,
                       .logits = LogitsOf::kEveryToken};
  const MtpResult pass = model.mtp().Step({&pairs, 1})[0];
  ASSERT_THAT(pass.status, switchyard::testing::IsOk());
  ExpectClose(pass.hidden, "len65.mtp.hidden");
  ExpectClose(pass.logits, "len65.mtp.logits");
  EXPECT_EQ(mtp_state->num_mtp_pairs, 65);
  const model::ModelConfig& config = model.config();
  const auto heads_first = [&](const std::vector<float>& rows) {
    return HeadsFirst(rows, config.num_key_value_heads, config.head_dim);
  };
  const StateShape& shape = mtp_state->shape();
  const KvLayer kv = {mtp_state->pages(), shape.kv, shape.num_full_layers};
  ExpectClose(heads_first(CachedKeys(kv, 65)), "len65.mtp.k");
  ExpectClose(heads_first(CachedValues(kv, 65)), "len65.mtp.v");

  // The head's own output in the place of the model's hidden state.
  const int64_t hidden = config.hidden_size;
  const int64_t vocab = config.vocab_size;
  std::vector<float> last_hidden(pass.hidden.end() - hidden, pass.hidden.end());
  std::vector<float> logits(pass.logits.end() - vocab, pass.logits.end());
  std::vector<int32_t> drafts = {ArgMax(logits)};
  std::vector<float> draft_logits = logits;
  while (drafts.size() < 3) {
    const int32_t draft = drafts.back();
    const MtpChunk step{.state = mtp_state.get(),
                        .hidden = last_hidden,
                        .next_tokens = {&draft, 1}};
    const MtpResult next = model.mtp().Step({&step, 1})[0];
    ASSERT_THAT(next.status, switchyard::testing::IsOk());
    last_hidden = next.hidden;
    draft_logits.insert(draft_logits.end(), next.logits.begin(),
                        next.logits.end());
    drafts.push_back(ArgMax(next.logits));
  }
  EXPECT_EQ(drafts, golden_.Ints("len65.mtp.draft_ids"));
  ExpectClose(draft_logits, "len65.mtp.draft_logits");

  // Entries that rest on drafts can be dropped, and the true pairs run.
  mtp_state->num_mtp_pairs = 64;
  const MtpChunk again{
      .state = mtp_state.get(),
      .hidden = absl::MakeConstSpan(result.hidden).last(hidden),
      .next_tokens = absl::MakeConstSpan(next_tokens).last(1)};
  EXPECT_TRUE(SameBits(model.mtp().Step({&again, 1})[0].logits, logits));
}

// The twin is the definition elsewhere; here it has to be right itself.
TEST_P(GoldenTest, ReferenceTwin) {
  auto checkpoint = model::Checkpoint::Open(Directory());
  ASSERT_THAT(checkpoint, switchyard::testing::IsOk());
  const switchyard::testing::ReferenceModel reference(checkpoint->get());
  const ReferenceRun run = reference.Run(golden_.Ints("len65.input_ids"));
  ExpectClose(Flatten(run.logits), "len65.logits");
  ExpectClose(Flatten(run.final_hidden), "len65.final_hidden");
  std::vector<float> recurrent, k, conv;
  for (const auto& linear : run.linear) {
    for (const Rows& head : linear.recurrent) {
      const std::vector<float> flat = Flatten(head);
      recurrent.insert(recurrent.end(), flat.begin(), flat.end());
    }
    const std::vector<float> tail =
        Transpose(Flatten(linear.conv_tail), linear.conv_tail.size(),
                  linear.conv_tail[0].size());
    conv.insert(conv.end(), tail.begin(), tail.end());
  }
  const model::ModelConfig& config = (*checkpoint)->config();
  for (const auto& full : run.full) {
    const std::vector<float> flat = HeadsFirst(
        Flatten(full.keys), config.num_key_value_heads, config.head_dim);
    k.insert(k.end(), flat.begin(), flat.end());
  }
  ExpectClose(recurrent, "len65.state.recurrent");
  ExpectClose(conv, "len65.state.conv");
  ExpectClose(k, "len65.state.k");
  EXPECT_EQ(run.gate[0].experts.size(), 65u);
  std::vector<int32_t> chosen;
  for (const auto& row : run.gate[0].experts) {
    chosen.insert(chosen.end(), row.begin(), row.end());
  }
  EXPECT_EQ(chosen, golden_.Ints("len65.router.first.indices"));
  if (!golden_.Has("len65.mtp.hidden")) return;
  const ReferenceMtpRun mtp =
      reference.RunMtp(run.final_hidden, NextTokens(golden_));
  ExpectClose(Flatten(mtp.hidden), "len65.mtp.hidden");
  ExpectClose(Flatten(mtp.logits), "len65.mtp.logits");
}

}  // namespace
}  // namespace switchyard::attention_worker

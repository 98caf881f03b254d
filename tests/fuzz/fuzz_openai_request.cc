#include "absl/strings/string_view.h"
#include "base/check.h"
#include "base/json.h"
#include "router/openai/errors.h"
#include "router/openai/request.h"
#include "tests/fuzz/fuzz_target.h"

namespace switchyard::fuzz {
namespace {

constexpr int64_t kVocabSize = 1000;

void CheckParams(const router::GenerationParams& params) {
  SY_CHECK(params.n >= 1 && params.n <= 128);
  SY_CHECK(!params.max_tokens || *params.max_tokens >= 1);
  SY_CHECK(params.sampling.temperature >= 0);
  SY_CHECK(params.sampling.top_p > 0 && params.sampling.top_p <= 1);
  SY_CHECK(params.sampling.top_k >= 0);
  SY_CHECK(params.top_logprobs >= 0 && params.top_logprobs <= 20);
  SY_CHECK(!params.timeout || *params.timeout > absl::ZeroDuration());
  for (const int32_t id : params.stop_token_ids) {
    SY_CHECK(id >= 0 && id < kVocabSize);
  }
}

void CheckRefusal(const absl::Status& status) {
  const router::ApiError error = router::ToApiError(status);
  SY_CHECK(error.http_status == 400 && !error.message.empty());
  SY_CHECK(ParseJson(router::ErrorBody(error)).ok());
}

}  // namespace

void FuzzOpenAiRequest(absl::Span<const uint8_t> bytes) {
  const absl::string_view text(reinterpret_cast<const char*>(bytes.data()),
                               bytes.size());
  const auto body = ParseJson(text, {.max_bytes = 1 << 20, .max_depth = 64});
  if (!body.ok()) return;
  router::RequestDefaults defaults;
  defaults.vocab_size = kVocabSize;

  const auto chat = router::ParseChatRequest(*body, defaults);
  if (chat.ok()) {
    CheckParams(chat->params);
    SY_CHECK(!chat->prompt.messages.empty());
    for (const Json& message : chat->prompt.messages) {
      SY_CHECK(message["role"].is_string() && message["content"].is_string());
    }
    SY_CHECK(chat->prompt.tools.is_null() || chat->prompt.tools.is_array());
    // Rendering may refuse, but must not stop.
    for (const auto format :
         {router::ChatFormat::kInstruct, router::ChatFormat::kThinking,
          router::ChatFormat::kCoder, router::ChatFormat::kHybrid}) {
      (void)router::RenderChat(format, chat->prompt);
    }
  } else {
    CheckRefusal(chat.status());
  }

  const auto completion = router::ParseCompletionRequest(*body, defaults);
  if (completion.ok()) {
    CheckParams(completion->params);
    SY_CHECK(!completion->prompts.empty());
  } else {
    CheckRefusal(completion.status());
  }
}

}  // namespace switchyard::fuzz

SWITCHYARD_FUZZER_ENTRY(FuzzOpenAiRequest);

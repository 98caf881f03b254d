#include "router/sglang/generate_request.h"

#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/config.h"
#include "router/openai/cache_scope.h"
#include "router/openai/errors.h"
#include "router/openai/field_reader.h"
#include "router/openai/output_fields.h"
#include "router/openai/sampling_fields.h"

namespace switchyard::router {
namespace {

constexpr int64_t kDefaultMaxNewTokens = 128;  // SGLang's
constexpr int64_t kMaxTokens = int64_t{1} << 31;
constexpr int kMaxTopLogprobs = 20;
constexpr size_t kMaxRidBytes = 512;

// Fields that would change the answer and that this server does not serve.
constexpr const char* kUnsupported[] = {
    "image_data",           "audio_data",
    "video_data",           "lora_path",
    "input_embeds",         "custom_logit_processor",
    "return_hidden_states", "token_ids_logprob"};
constexpr const char* kIgnored[] = {
    "modalities",         "session_params",       "background",
    "log_metrics",        "conversation_id",      "validation_time",
    "bootstrap_host",     "bootstrap_port",       "bootstrap_room",
    "data_parallel_rank", "return_routed_experts"};
constexpr const char* kIgnoredSampling[] = {"spaces_between_special_tokens",
                                            "custom_params", "stream_interval"};

bool IsEmpty(const Json& value) {
  return value == false || (value.is_array() && value.empty()) ||
         (value.is_object() && value.empty()) || value == "";
}

absl::Status RefuseUnsupported(FieldReader* reader) {
  for (const char* name : kUnsupported) {
    const Json* value = reader->Find(name);
    if (value == nullptr || IsEmpty(*value)) continue;
    // A batch's list of nothings.
    if (value->is_array() &&
        absl::c_all_of(*value, [](const Json& v) { return v.is_null(); })) {
      continue;
    }
    return ParamError(name, "is not supported by this server");
  }
  return absl::OkStatus();
}

// A value, or a list of equal ones: what a batch's prompts share.
absl::StatusOr<Json> SharedValue(const FieldReader& reader, const char* name) {
  const Json* value = reader.Find(name);
  if (value == nullptr) return Json(nullptr);
  if (!value->is_array()) return *value;
  if (value->empty()) return Json(nullptr);
  for (const Json& other : *value) {
    if (other != (*value)[0]) {
      return ParamError(name, "must be the same for all prompts of a batch");
    }
  }
  return (*value)[0];
}

absl::Status ReadPrompts(FieldReader* reader, int64_t vocab_size,
                         SglangRequest* out) {
  const Json* text = reader->Find("text");
  const Json* ids = reader->Find("input_ids");
  if ((text == nullptr) == (ids == nullptr)) {
    return ParamError("text", "give either text or input_ids");
  }
  std::vector<Prompt>& prompts = out->completion.prompts;
  if (text != nullptr) {
    out->batch = text->is_array();
    const Json list = out->batch ? *text : Json::array({*text});
    for (size_t i = 0; i < list.size(); ++i) {
      if (!list[i].is_string()) {
        return ParamError("text", "must be a string or a list of strings");
      }
      prompts.emplace_back(list[i].get<std::string>());
    }
  } else {
    if (!ids->is_array() || ids->empty()) {
      return ParamError("input_ids",
                        "must be a list of token ids, or a list of such lists");
    }
    out->batch = (*ids)[0].is_array();
    const Json list = out->batch ? *ids : Json::array({*ids});
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string path =
          out->batch ? absl::StrCat("input_ids[", i, "]") : "input_ids";
      if (!list[i].is_array()) {
        return ParamError(path, "must be a list of token ids");
      }
      SY_ASSIGN_OR_RETURN(std::vector<int32_t> prompt,
                          ParseTokenIds(list[i], path, vocab_size));
      prompts.emplace_back(std::move(prompt));
    }
  }
  if (prompts.empty()) return ParamError("text", "has no prompts");
  return absl::OkStatus();
}

absl::Status ReadSamplingParams(const Json& object,
                                const RequestDefaults& defaults,
                                SglangRequest* out) {
  if (!object.is_object()) {
    return ParamError("sampling_params", "must be an object");
  }
  FieldReader reader(object, "sampling_params.");
  GenerationParams& params = out->completion.params;
  // This API does not know the model's own defaults.
  ReadSampling(&reader, model::GenerationConfig(), &params.sampling);
  SY_RETURN_IF_ERROR(
      ReadTokenRules(&reader, "min_new_tokens", defaults.vocab_size, &params));
  SY_RETURN_IF_ERROR(ReadStop(&reader, defaults.vocab_size, &params));
  SY_ASSIGN_OR_RETURN(params.output_format, ReadOutputFormat(&reader));
  const int64_t max_new = reader.Int("max_new_tokens", 0, kMaxTokens)
                              .value_or(kDefaultMaxNewTokens);
  out->completion.prefill_only = max_new == 0;
  params.max_tokens = out->completion.prefill_only ? 1 : max_new;
  if (const auto seed = reader.Int("sampling_seed", INT64_MIN, INT64_MAX)) {
    params.has_seed = true;
    params.sampling.seed = static_cast<uint64_t>(*seed);
  }
  params.n =
      static_cast<int>(reader.Int("n", 1, defaults.max_choices).value_or(1));
  params.ignore_eos = reader.Bool("ignore_eos").value_or(false);
  params.skip_special_tokens =
      reader.Bool("skip_special_tokens").value_or(true);
  params.include_stop_str_in_output =
      reader.Bool("no_stop_trim").value_or(false);
  if (defaults.strict) reader.RefuseUnknown(kIgnoredSampling);
  return reader.status();
}

absl::Status ReadLogprobs(FieldReader* reader, SglangRequest* out) {
  GenerationParams& params = out->completion.params;
  SY_ASSIGN_OR_RETURN(const Json wanted,
                      SharedValue(*reader, "return_logprob"));
  SY_ASSIGN_OR_RETURN(const Json start,
                      SharedValue(*reader, "logprob_start_len"));
  SY_ASSIGN_OR_RETURN(const Json top, SharedValue(*reader, "top_logprobs_num"));
  const Json values = {{"return_logprob", wanted},
                       {"logprob_start_len", start},
                       {"top_logprobs_num", top}};
  FieldReader shared(values);
  out->return_logprob = shared.Bool("return_logprob").value_or(false);
  params.logprobs = out->return_logprob;
  params.top_logprobs = static_cast<int>(
      shared.Int("top_logprobs_num", 0, kMaxTopLogprobs).value_or(0));
  if (!params.logprobs) params.top_logprobs = 0;
  out->text_in_logprobs =
      reader->Bool("return_text_in_logprobs").value_or(false);
  // Who generates nothing and does not say where to begin wants the prompt's.
  const int64_t from = shared.Int("logprob_start_len", -1, kMaxTokens)
                           .value_or(out->completion.prefill_only ? 0 : -1);
  if (out->return_logprob && from >= 0) out->logprob_start = from;
  return shared.status();
}

absl::Status ReadRids(FieldReader* reader, SglangRequest* out) {
  const Json* rid = reader->Find("rid");
  if (rid == nullptr) return absl::OkStatus();
  const Json list = rid->is_array() ? *rid : Json::array({*rid});
  for (const Json& name : list) {
    if (!name.is_string() ||
        name.get_ref<const std::string&>().size() > kMaxRidBytes) {
      return ParamError("rid", "must be a string, or a list of strings");
    }
    out->rids.push_back(name.get<std::string>());
  }
  if (out->rids.size() != out->completion.prompts.size()) {
    return ParamError("rid",
                      absl::StrCat("has ", out->rids.size(), " names for ",
                                   out->completion.prompts.size(), " prompts"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SglangRequest> ParseSglangRequest(
    const Json& body, const RequestDefaults& defaults) {
  FieldReader reader(body);
  SglangRequest request;
  GenerationParams& params = request.completion.params;
  SY_RETURN_IF_ERROR(RefuseUnsupported(&reader));
  SY_RETURN_IF_ERROR(ReadPrompts(&reader, defaults.vocab_size, &request));
  SY_ASSIGN_OR_RETURN(Json sampling, SharedValue(reader, "sampling_params"));
  if (sampling.is_null()) sampling = Json::object();
  SY_RETURN_IF_ERROR(ReadSamplingParams(sampling, defaults, &request));
  SY_RETURN_IF_ERROR(ReadLogprobs(&reader, &request));
  SY_RETURN_IF_ERROR(ReadRids(&reader, &request));
  SY_ASSIGN_OR_RETURN(
      params.cache_scopes,
      ReadCacheScopes(&reader, request.completion.prompts.size()));
  params.stream = reader.Bool("stream").value_or(false);
  params.priority = static_cast<int>(
      reader.Int("priority", INT32_MIN, INT32_MAX).value_or(0));
  if (request.completion.prompts.size() * static_cast<size_t>(params.n) >
      static_cast<size_t>(defaults.max_choices)) {
    reader.Fail("text", absl::StrCat(request.completion.prompts.size(),
                                     " prompts times n = ", params.n,
                                     " are more than ", defaults.max_choices));
  }
  if (defaults.strict) reader.RefuseUnknown(kIgnored);
  SY_RETURN_IF_ERROR(reader.status());
  return request;
}

}  // namespace switchyard::router

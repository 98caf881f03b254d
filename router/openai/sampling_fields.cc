#include "router/openai/sampling_fields.h"

#include <cmath>
#include <limits>

#include "absl/algorithm/container.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "router/openai/errors.h"

namespace switchyard::router {
namespace {

constexpr size_t kMaxStopStrings = 64;
constexpr size_t kMaxStopExpressions = 16;
constexpr size_t kMaxStopBytes = 4096;
constexpr size_t kMaxStopTokenIds = 128;
constexpr size_t kMaxBiases = 16384;
constexpr double kMaxBias = 100;

// A string, or an array of strings.
absl::StatusOr<std::vector<std::string>> ReadTexts(FieldReader* reader,
                                                   const char* name,
                                                   size_t max_count,
                                                   size_t max_bytes) {
  std::vector<std::string> texts;
  const Json* const value = reader->Find(name);
  if (value == nullptr) return texts;
  const std::string path = reader->PathOf(name);
  const Json list = value->is_string() ? Json::array({*value}) : *value;
  if (!list.is_array()) {
    return ParamError(path, "must be a string or an array of strings");
  }
  if (list.size() > max_count) {
    return ParamError(
        path, absl::StrCat("has ", list.size(), " strings; at most ", max_count,
                           " are allowed"));
  }
  for (const Json& text : list) {
    if (!text.is_string()) {
      return ParamError(path, "must be a string or an array of strings");
    }
    texts.push_back(text.get<std::string>());
    if (texts.back().size() > max_bytes) {
      return ParamError(path, absl::StrCat("has a string of more than ",
                                           max_bytes, " bytes"));
    }
  }
  return texts;
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> ParseTokenIds(const Json& array,
                                                   const std::string& path,
                                                   int64_t vocab_size) {
  std::vector<int32_t> ids;
  ids.reserve(array.size());
  for (size_t i = 0; i < array.size(); ++i) {
    const Json& value = array[i];
    const bool integer = value.is_number_integer() &&
                         !(value.is_number_unsigned() &&
                           value.get<uint64_t>() > uint64_t{INT32_MAX});
    const int64_t id = integer ? value.get<int64_t>() : -1;
    if (id < 0 || id >= vocab_size) {
      return ParamError(
          absl::StrCat(path, "[", i, "]"),
          absl::StrCat(
              "must be a token id in [0, ", vocab_size, "), not ",
              value.is_binary() ? "a larger number" : DumpJson(value)));
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

void ReadSampling(FieldReader* reader, const model::GenerationConfig& config,
                  SamplingParams* out) {
  constexpr double kHuge = 1e6;
  out->temperature = reader->Number("temperature", 0, kHuge)
                         .value_or(config.do_sample ? config.temperature : 0.0);
  out->top_p = reader->Number("top_p", std::numeric_limits<double>::min(), 1)
                   .value_or(config.top_p);
  out->top_k = static_cast<int>(
      reader->Int("top_k", -1, INT32_MAX).value_or(config.top_k));
  if (out->top_k < 0) out->top_k = 0;
  out->min_p = reader->Number("min_p", 0, 1).value_or(config.min_p);
  out->presence_penalty =
      reader->Number("presence_penalty", -2, 2).value_or(0.0);
  out->frequency_penalty =
      reader->Number("frequency_penalty", -2, 2).value_or(0.0);
  out->repetition_penalty = reader->Number("repetition_penalty", 1e-6, kHuge)
                                .value_or(config.repetition_penalty);
}

absl::Status ReadTokenRules(FieldReader* reader, const char* min_tokens_name,
                            int64_t vocab_size, GenerationParams* out) {
  SamplingParams& sampling = out->sampling;
  if (const Json* bias = reader->Find("logit_bias")) {
    if (!bias->is_object() || bias->size() > kMaxBiases) {
      return ParamError("logit_bias",
                        absl::StrCat("must be an object of at most ",
                                     kMaxBiases, " token ids and numbers"));
    }
    for (const auto& [key, value] : bias->items()) {
      const std::string path = absl::StrCat("logit_bias.", key.substr(0, 32));
      int32_t id = -1;
      if (!absl::SimpleAtoi(key, &id) || id < 0 || id >= vocab_size) {
        return ParamError(
            path, absl::StrCat("must be a token id in [0, ", vocab_size, ")"));
      }
      const double number = value.is_number() ? value.get<double>() : NAN;
      if (!(std::fabs(number) <= kMaxBias)) {
        return ParamError(path, "must be a number in [-100, 100]");
      }
      sampling.logit_bias.emplace_back(id, static_cast<float>(number));
    }
    // "5" and "05" are the same token.
    absl::c_sort(sampling.logit_bias);
    for (size_t i = 1; i < sampling.logit_bias.size(); ++i) {
      const int32_t id = sampling.logit_bias[i].first;
      if (id == sampling.logit_bias[i - 1].first) {
        return ParamError("logit_bias",
                          absl::StrCat("has token ", id, " twice"));
      }
    }
  }
  if (const Json* allowed = reader->Find("allowed_token_ids")) {
    if (!allowed->is_array() ||
        allowed->size() > static_cast<size_t>(vocab_size)) {
      return ParamError("allowed_token_ids", "must be an array of token ids");
    }
    SY_ASSIGN_OR_RETURN(
        sampling.allowed_token_ids,
        ParseTokenIds(*allowed, "allowed_token_ids", vocab_size));
  }
  sampling.min_tokens = reader->Int(min_tokens_name, 0, INT32_MAX).value_or(0);
  return reader->status();
}

absl::Status ReadStop(FieldReader* reader, int64_t vocab_size,
                      GenerationParams* out) {
  SY_ASSIGN_OR_RETURN(
      out->stop, ReadTexts(reader, "stop", kMaxStopStrings, kMaxStopBytes));
  SY_ASSIGN_OR_RETURN(
      const std::vector<std::string> expressions,
      ReadTexts(reader, "stop_regex", kMaxStopExpressions, kMaxStopBytes));
  for (const std::string& expression : expressions) {
    if (expression.empty()) continue;
    auto compiled = text::Regex::Compile(expression);
    if (!compiled.ok()) {
      return ParamError(reader->PathOf("stop_regex"),
                        std::string(compiled.status().message()));
    }
    out->stop_regex.push_back(*std::move(compiled));
  }
  if (const Json* ids = reader->Find("stop_token_ids")) {
    if (!ids->is_array() || ids->size() > kMaxStopTokenIds) {
      return ParamError("stop_token_ids",
                        absl::StrCat("must be an array of at most ",
                                     kMaxStopTokenIds, " token ids"));
    }
    SY_ASSIGN_OR_RETURN(out->stop_token_ids,
                        ParseTokenIds(*ids, "stop_token_ids", vocab_size));
  }
  return absl::OkStatus();
}

}  // namespace switchyard::router

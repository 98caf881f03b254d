#include "switchyard/text/text_commands.h"

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "router/text/chat_format.h"
#include "router/text/output_parser.h"
#include "switchyard/output_error.h"
#include "text/tokenizer.h"

namespace switchyard {
namespace {

// A member of the line's object; null where it is missing.
Json Member(const Json& line, const char* key) {
  const auto found = line.find(key);
  return found == line.end() ? Json() : *found;
}

absl::Status Wrong(const char* key, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("\"", key, "\" ", what));
}

absl::StatusOr<std::string> TextOf(const Json& line, const char* key) {
  Json value = Member(line, key);
  if (!value.is_string()) return Wrong(key, "is not text");
  return value.get<std::string>();
}

absl::StatusOr<Json> ListOrNullOf(const Json& line, const char* key) {
  Json value = Member(line, key);
  if (!value.is_array() && !value.is_null()) return Wrong(key, "is not a list");
  return value;
}

absl::StatusOr<std::vector<int32_t>> IdsOf(const Json& line) {
  const Json list = Member(line, "ids");
  if (!list.is_array()) return Wrong("ids", "is not a list");
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (const Json& item : list) {
    // Beyond 32 bits an id has no token either.
    const bool id =
        item.is_number_unsigned()
            ? item.get<uint64_t>() <= uint64_t{INT32_MAX}
            : item.is_number_integer() && item.get<int64_t>() >= INT32_MIN;
    if (!id) {
      return Wrong("ids", absl::StrCat("has an item that is not an id: ",
                                       DumpJson(item)));
    }
    ids.push_back(item.get<int32_t>());
  }
  return ids;
}

// Answers every line by `answer`, which gets an object.
absl::Status ForEachLine(
    std::istream& in, std::ostream& out,
    absl::FunctionRef<absl::StatusOr<Json>(const Json&)> answer) {
  int64_t line_number = 0;
  int64_t wrong = 0;
  int64_t first_wrong = 0;
  std::string first_error;
  std::string text;
  while (std::getline(in, text)) {
    ++line_number;
    if (absl::StripAsciiWhitespace(text).empty()) continue;
    absl::StatusOr<Json> result = ParseJson(text);
    if (result.ok()) {
      result = result->is_object()
                   ? answer(*result)
                   : absl::InvalidArgumentError("the line is not an object");
    }
    if (!result.ok()) {
      if (wrong++ == 0) {
        first_wrong = line_number;
        first_error = std::string(result.status().message());
      }
      Json error;
      error["error"] = std::string(result.status().message());
      result = std::move(error);
    }
    SY_RETURN_IF_ERROR(WriteOutput(out, [&](std::ostream& stream) {
      stream << DumpJsonLikePython(*result) << "\n";
    }));
  }
  if (in.bad()) {
    return absl::DataLossError(
        absl::StrCat("the input cannot be read behind line ", line_number));
  }
  SY_RETURN_IF_ERROR(
      WriteOutput(out, [](std::ostream& stream) { stream.flush(); }));
  if (wrong == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      wrong, " of ", line_number, " lines were wrong; the first, line ",
      first_wrong, ": ", first_error));
}

absl::StatusOr<router::OutputSyntax> SyntaxOf(const std::string& format) {
  using Thinking = router::OutputSyntax::Thinking;
  router::OutputSyntax syntax;
  syntax.tool_calls = router::ToolCallSyntax::kJson;
  if (format == "xml") {
    syntax.tool_calls = router::ToolCallSyntax::kXml;
  } else if (format == "think") {
    syntax.thinking = Thinking::kOpened;
  } else if (format == "nothink") {
    syntax.thinking = Thinking::kMaybe;
  } else if (format != "json") {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", format,
                     "\" is no output format; there are json, "
                     "xml, think and nothink"));
  }
  return syntax;
}

absl::StatusOr<Json> ParsedMessageToJson(const router::ParsedMessage& message,
                                         bool with_reasoning) {
  Json result;
  if (with_reasoning) result["reasoning"] = message.reasoning;
  result["content"] = message.content;
  result["tool_calls"] = Json::array();
  for (const router::ToolCall& call : message.tool_calls) {
    Json item;
    item["name"] = call.name;
    SY_ASSIGN_OR_RETURN(item["arguments"], ParseJson(call.arguments));
    result["tool_calls"].push_back(std::move(item));
  }
  return result;
}

}  // namespace

absl::Status RunTokenize(const TokenizeOptions& options, std::istream& in,
                         std::ostream& out) {
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<text::Tokenizer> tokenizer,
                      text::Tokenizer::Load(options.model_dir));
  return ForEachLine(in, out, [&](const Json& line) -> absl::StatusOr<Json> {
    Json result;
    if (options.decode) {
      SY_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, IdsOf(line));
      result["text"] = tokenizer->Decode(ids, options.skip_special);
    } else {
      SY_ASSIGN_OR_RETURN(const std::string text, TextOf(line, "text"));
      result["ids"] = tokenizer->Encode(text);
    }
    return result;
  });
}

absl::Status RunRender(const RenderOptions& options, std::istream& in,
                       std::ostream& out) {
  SY_ASSIGN_OR_RETURN(const router::ChatFormat format,
                      router::ParseChatFormat(options.format));
  return ForEachLine(in, out, [&](const Json& line) -> absl::StatusOr<Json> {
    router::ChatPrompt prompt;
    prompt.messages = Member(line, "messages");
    prompt.tools = Member(line, "tools");
    prompt.kwargs = Member(line, "kwargs");
    if (!prompt.kwargs.is_object() && !prompt.kwargs.is_null()) {
      return Wrong("kwargs", "is not an object");
    }
    Json result;
    SY_ASSIGN_OR_RETURN(result["rendered"], router::RenderChat(format, prompt));
    return result;
  });
}

absl::Status RunParse(const ParseOptions& options, std::istream& in,
                      std::ostream& out) {
  SY_ASSIGN_OR_RETURN(router::OutputSyntax syntax, SyntaxOf(options.format));
  const bool with_reasoning =
      syntax.thinking != router::OutputSyntax::Thinking::kNone;
  return ForEachLine(in, out, [&](const Json& line) -> absl::StatusOr<Json> {
    SY_ASSIGN_OR_RETURN(const std::string text, TextOf(line, "text"));
    SY_ASSIGN_OR_RETURN(syntax.tools, ListOrNullOf(line, "tools"));
    return ParsedMessageToJson(router::ParseOutput(syntax, text),
                               with_reasoning);
  });
}

}  // namespace switchyard

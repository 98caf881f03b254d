#include "router/responses/api.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "router/openai/errors.h"
#include "router/openai/request.h"

namespace switchyard::router {
namespace {

using Writer = std::shared_ptr<ResponseWriter>;

constexpr int64_t kDefaultPage = 20;
constexpr int64_t kMaxPage = 100;

// A background answer: the client has been told that it is queued, and neither
// waits nor is heard of any more.
class BackgroundWriter final : public ResponseWriter {
 public:
  explicit BackgroundWriter(Writer client) : client_(std::move(client)) {}
  void Send(HttpResponse) override {}
  void StartStream(const HttpResponse&) override {}
  bool Write(std::string) override { return true; }
  void Finish() override {}
  void Post(std::function<void()> function) override {
    client_->Post(std::move(function));
  }
  void OnGone(std::function<void()>) override {}

 private:
  const Writer client_;  // for its strand
};

ApiError NotFound(absl::string_view id) {
  ApiError error = HttpError(
      404, absl::StrCat("no response '", id.substr(0, 128),
                        "' is stored here; it may have been dropped to make "
                        "room, deleted, or made by another router"));
  error.code = "response_not_found";
  return error;
}

// The value of one field of a query string; "" without it.
std::string QueryField(absl::string_view query, absl::string_view name) {
  for (absl::string_view part : absl::StrSplit(query, '&')) {
    const std::pair<absl::string_view, absl::string_view> field =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    if (field.first == name) return std::string(field.second);
  }
  return "";
}

// Clients name items by ids: those that have none get one.
Json WithIds(Json items, const std::string& id) {
  for (size_t i = 0; i < items.size(); ++i) {
    Json& item = items[i];
    if (!item.contains("type")) item["type"] = "message";
    if (item.contains("id")) continue;
    item["id"] = absl::StrCat("item_", id, "_", i);
    if (item["type"] == "message" && item["content"].is_string()) {
      item["content"] =
          Json::array({{{"type", "input_text"}, {"text", item["content"]}}});
    }
  }
  return items;
}

}  // namespace

void ResponsesApi::AddRoutes(Routes* routes) {
  routes->Add("POST", "/v1/responses",
              [this](RoutedRequest request, Writer writer) {
                answers_->Answer(
                    std::move(request.http), std::move(writer),
                    [this](absl::string_view body, const PlanContext& context) {
                      return Plan(body, context);
                    });
              });
  routes->Add("POST", "/v1/responses/input_tokens",
              [this](RoutedRequest request, Writer writer) {
                answers_->Compute(
                    std::move(request.http), std::move(writer),
                    [this](absl::string_view body, const PlanContext&) {
                      return CountTokens(body);
                    });
              });
  routes->Add("GET", "/v1/responses/{id}",
              [this](const RoutedRequest& request, const Writer& writer) {
                writer->Send(Get(request.variables[0]));
              });
  routes->Add("DELETE", "/v1/responses/{id}",
              [this](const RoutedRequest& request, const Writer& writer) {
                writer->Send(Delete(request.variables[0]));
              });
  routes->Add("POST", "/v1/responses/{id}/cancel",
              [this](const RoutedRequest& request, const Writer& writer) {
                writer->Send(Cancel(request.variables[0]));
              });
  routes->Add("GET", "/v1/responses/{id}/input_items",
              [this](const RoutedRequest& request, const Writer& writer) {
                writer->Send(InputItems(request));
              });
}

absl::StatusOr<ResponsesRequest> ResponsesApi::Parse(
    absl::string_view body) const {
  SY_ASSIGN_OR_RETURN(const Json json, ParseBody(body));
  SY_ASSIGN_OR_RETURN(const std::string previous, PreviousResponseId(json));
  Json earlier = Json::array();
  if (!previous.empty()) {
    const auto stored = store_->Get(previous);
    if (stored == nullptr || stored->history.is_null()) {
      return absl::NotFoundError(
          absl::StrCat("previous_response_id: ", NotFound(previous).message));
    }
    earlier = stored->history;
  }
  return ParseResponsesRequest(json, earlier);
}

absl::StatusOr<GenerationPlan> ResponsesApi::Plan(
    absl::string_view body, const PlanContext& context) const {
  SY_ASSIGN_OR_RETURN(ResponsesRequest request, Parse(body));
  SY_ASSIGN_OR_RETURN(
      ChatRequest chat,
      ParseChatRequest(request.chat, planner_->options().defaults));
  chat.params.n = 1;
  if (chat.params.prompt_logprobs) {
    return ParamError("prompt_logprobs", "is not supported by this API");
  }
  if (request.background) {
    if (chat.params.stream || !request.store) {
      return ParamError("background", "needs store: true and stream: false");
    }
  }
  SY_ASSIGN_OR_RETURN(GenerationPlan plan,
                      planner_->PlanChat(std::move(chat), context, "input"));
  const std::string id = absl::StrCat("resp_", context.id);
  plan.id = id;
  plan.names = {id};
  ResponsesFormat::Options format;
  format.id = id;
  format.created = context.created;
  format.model = context.model;
  format.background = request.background;
  format.echo = std::move(request.echo);
  if (request.store) {
    format.on_complete = [store = store_, id, background = request.background,
                          input = WithIds(request.input, context.id),
                          history = request.history](const Json& response) {
      Json whole = history;
      for (const Json& item : response["output"]) whole.push_back(item);
      StoredResponse stored{response, input, std::move(whole)};
      // One in the background has been stored, and may have been deleted.
      if (background) {
        store->Replace(id, std::move(stored));
      } else {
        store->Put(id, std::move(stored));
      }
    };
  }
  if (request.background) {
    Json queued = ResponsesFormat::Unfinished(format, "queued");
    store_->Put(id, {queued, WithIds(request.input, context.id), nullptr});
    plan.wrap_writer = [queued = std::move(queued)](Writer client) {
      client->Send(JsonResponse(200, queued));
      return std::make_shared<BackgroundWriter>(std::move(client));
    };
  }
  plan.format = std::make_unique<ResponsesFormat>(std::move(format));
  return plan;
}

absl::StatusOr<HttpResponse> ResponsesApi::CountTokens(
    absl::string_view body) const {
  SY_ASSIGN_OR_RETURN(const ResponsesRequest request, Parse(body));
  SY_ASSIGN_OR_RETURN(
      const ChatRequest chat,
      ParseChatRequest(request.chat, planner_->options().defaults));
  SY_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                      planner_->ChatTokens(chat));
  return JsonResponse(
      200, {{"object", "response.input_tokens"}, {"input_tokens", ids.size()}});
}

HttpResponse ResponsesApi::Get(const std::string& id) const {
  const auto stored = store_->Get(id);
  return stored == nullptr ? ErrorResponse(NotFound(id))
                           : JsonResponse(200, stored->response);
}

HttpResponse ResponsesApi::Delete(const std::string& id) const {
  if (!store_->Erase(id)) return ErrorResponse(NotFound(id));
  answers_->Interrupt(id, "deleted");  // nobody can ask for the rest
  return JsonResponse(200,
                      {{"id", id}, {"object", "response"}, {"deleted", true}});
}

HttpResponse ResponsesApi::Cancel(const std::string& id) const {
  const int interrupted = answers_->Interrupt(id, "cancelled");
  const auto stored = store_->Get(id);
  if (stored == nullptr && interrupted == 0) return ErrorResponse(NotFound(id));
  // The answer's own last word, with what it has, comes a moment later.
  Json response = stored == nullptr ? Json({{"id", id}, {"object", "response"}})
                                    : stored->response;
  if (interrupted > 0) response["status"] = "cancelled";
  return JsonResponse(200, response);
}

HttpResponse ResponsesApi::InputItems(const RoutedRequest& request) const {
  const std::string& id = request.variables[0];
  const auto stored = store_->Get(id);
  if (stored == nullptr) return ErrorResponse(NotFound(id));
  Json items = stored->input_items;
  // Newest first, unless asked otherwise.
  if (QueryField(request.http.query, "order") != "asc") {
    std::reverse(items.begin(), items.end());
  }
  int64_t limit = kDefaultPage;
  const std::string wanted = QueryField(request.http.query, "limit");
  if (!wanted.empty() &&
      (!absl::SimpleAtoi(wanted, &limit) || limit < 1 || limit > kMaxPage)) {
    return ErrorResponse(ToApiError(
        ParamError("limit", absl::StrCat("must be in [1, ", kMaxPage, "]"))));
  }
  const std::string after = QueryField(request.http.query, "after");
  Json page = Json::array();
  bool skipping = !after.empty(), more = false;
  for (const Json& item : items) {
    if (skipping) {
      skipping = item["id"] != after;
    } else if (static_cast<int64_t>(page.size()) == limit) {
      more = true;
    } else {
      page.push_back(item);
    }
  }
  const Json first = page.empty() ? Json(nullptr) : page.front()["id"];
  const Json last = page.empty() ? Json(nullptr) : page.back()["id"];
  return JsonResponse(200, {{"object", "list"},
                            {"data", std::move(page)},
                            {"first_id", first},
                            {"last_id", last},
                            {"has_more", more}});
}

}  // namespace switchyard::router

#include "switchyard/bench/serving/report.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/json.h"
#include "base/version.h"

namespace switchyard::bench {
namespace {

constexpr int kSchemaVersion = 1;

constexpr double kMostComputedPerNew = 1.05;
constexpr double kMostSecondTurnShare = 0.10;
constexpr double kMostPrefixShare = 1.05;
constexpr double kLeastToPlain = 0.95;

std::string Milliseconds(double seconds) {
  return absl::StrFormat("%.2f", seconds * 1e3);
}

std::string ConversationText(const ConversationResult& result) {
  std::string text = absl::StrFormat(
      "\nconversation: %d turns; the first says %d tokens, others %d; answers "
      "of %d; medians of %d\n%5s %9s %7s %9s %9s %10s\n",
      result.options.turns, result.options.first_tokens,
      result.options.turn_tokens, result.options.answer_tokens,
      result.options.repeat, "turn", "prompt", "new", "cached", "computed",
      "TTFT ms");
  for (size_t t = 0; t < result.turns.size(); ++t) {
    const ConversationTurn& turn = result.turns[t];
    absl::StrAppendFormat(&text, "%5d %9d %7d %9d %9d %10s\n", t + 1,
                          turn.prompt_tokens, turn.new_tokens,
                          turn.cached_tokens, turn.computed_tokens,
                          Milliseconds(turn.ttft_seconds));
  }
  return text;
}

std::string PrefixText(const std::vector<PrefixResult>& results) {
  const PrefixOptions& options = results.front().options;
  std::string text = absl::StrFormat(
      "\nprefix: %d tokens and %d suffixes of %d, one after the other\n"
      "%-22s %9s %9s %7s %9s %13s %13s\n",
      options.prefix_tokens, options.suffixes, options.suffix_tokens, "",
      "least", "computed", "share", "cached", "cold TTFT ms", "warm TTFT ms");
  for (const PrefixResult& result : results) {
    absl::StrAppendFormat(
        &text, "%-22s %9d %9d %7.3f %9d %13s %13s\n",
        result.boundary ? "its end is given" : "its end is not given",
        result.least_tokens, result.computed_tokens, result.ComputedShare(),
        result.cached_tokens, Milliseconds(result.cold_ttft_seconds),
        Milliseconds(result.warm_ttft_seconds));
  }
  return text;
}

std::string DraftsText(const DraftsResult& result) {
  std::string text = absl::StrFormat(
      "\ndrafts: %s, answers of %d tokens, %d rounds\n"
      "%6s %-10s %10s %9s %19s %12s %13s\n",
      result.own_prompts ? "the model's own questions" : "random prompts",
      result.options.answer_tokens, result.options.repeat, "batch", "mode",
      "tokens/s", "to plain", "(min - max)", "tokens/step", "drafted/step");
  for (const DraftsMeasurement& m : result.measurements) {
    absl::StrAppendFormat(
        &text, "%6d %-10s %10.1f %9.3f (%8.3f -%8.3f) %12.2f %13.2f\n", m.batch,
        m.mode.Name(), m.tokens_per_second, m.to_plain, m.to_plain_min,
        m.to_plain_max, m.tokens_per_step, m.drafted_per_step);
  }
  return text;
}

std::string ConcurrencyText(const std::vector<ConcurrencyMeasurement>& all) {
  std::string text = absl::StrFormat(
      "\nconcurrency\n%8s %10s %14s %14s %14s %14s\n", "streams", "tokens/s",
      "token ms p50", "p99", "TTFT ms p50", "p99");
  for (const ConcurrencyMeasurement& m : all) {
    absl::StrAppendFormat(&text, "%8d %10.1f %14s %14s %14s %14s\n", m.streams,
                          m.tokens_per_second, Milliseconds(m.inter_token.p50),
                          Milliseconds(m.inter_token.p99),
                          Milliseconds(m.first_token.p50),
                          Milliseconds(m.first_token.p99));
  }
  return text;
}

std::string StallText(const std::vector<StallMeasurement>& all) {
  std::string text = absl::StrFormat(
      "\nstall: between tokens of streams, alone and while a prompt of %d "
      "tokens is read\n%6s %14s %9s %14s %9s %9s %10s\n",
      all.front().long_tokens, "chunk", "alone ms p50", "p99", "beside ms p50",
      "p99", "max", "prompt s");
  for (const StallMeasurement& m : all) {
    absl::StrAppendFormat(&text, "%6d %14s %9s %14s %9s %9s %10.2f\n", m.chunk,
                          Milliseconds(m.alone.p50), Milliseconds(m.alone.p99),
                          Milliseconds(m.beside.p50),
                          Milliseconds(m.beside.p99),
                          Milliseconds(m.beside.max), m.long_ttft_seconds);
  }
  return text;
}

std::string MixedText(const MixedResult& result) {
  return absl::StrFormat(
      "\nmixed: %d sessions of %d users, %d requests (%d aborted), %d output "
      "tokens\n"
      "states: budget %.2f MB, held at most %.2f MB\n"
      "resident: %.1f MB when warm, %.1f MB at most: %.1f MB more\n",
      result.options.sessions, result.options.users, result.requests,
      result.aborted, result.output_tokens,
      static_cast<double>(result.state_budget_bytes) * 1e-6,
      static_cast<double>(result.state_held_peak_bytes) * 1e-6,
      static_cast<double>(result.resident_warm_bytes) * 1e-6,
      static_cast<double>(result.resident_peak_bytes) * 1e-6,
      static_cast<double>(result.GrowthBytes()) * 1e-6);
}

Json LatencyJson(const Latency& latency) {
  Json json;
  json["p50"] = latency.p50;
  json["p99"] = latency.p99;
  json["max"] = latency.max;
  return json;
}

Json ConversationJson(const ConversationResult& result) {
  Json json;
  json["repetitions"] = result.options.repeat;
  json["answer_tokens"] = result.options.answer_tokens;
  json["computed_per_new"] = result.computed_per_new;
  json["second_turn_share"] = result.second_turn_share;
  json["turns"] = Json::array();
  for (const ConversationTurn& turn : result.turns) {
    Json item;
    item["prompt_tokens"] = turn.prompt_tokens;
    item["new_tokens"] = turn.new_tokens;
    item["cached_tokens"] = turn.cached_tokens;
    item["computed_tokens"] = turn.computed_tokens;
    item["ttft_seconds"] = turn.ttft_seconds;
    json["turns"].push_back(std::move(item));
  }
  return json;
}

Json PrefixJson(const std::vector<PrefixResult>& results) {
  Json json = Json::array();
  for (const PrefixResult& result : results) {
    Json item;
    item["boundary"] = result.boundary;
    item["prefix_tokens"] = result.options.prefix_tokens;
    item["suffix_tokens"] = result.options.suffix_tokens;
    item["suffixes"] = result.options.suffixes;
    item["least_tokens"] = result.least_tokens;
    item["computed_tokens"] = result.computed_tokens;
    item["cached_tokens"] = result.cached_tokens;
    item["cold_ttft_seconds"] = result.cold_ttft_seconds;
    item["warm_ttft_seconds"] = result.warm_ttft_seconds;
    json.push_back(std::move(item));
  }
  return json;
}

Json DraftsJson(const DraftsResult& result) {
  Json json;
  json["own_prompts"] = result.own_prompts;
  json["answer_tokens"] = result.options.answer_tokens;
  json["rounds"] = result.options.repeat;
  json["measurements"] = Json::array();
  for (const DraftsMeasurement& m : result.measurements) {
    Json item;
    item["batch"] = m.batch;
    item["mode"] = m.mode.Name();
    item["depth"] = m.mode.depth;
    item["adaptive"] = m.mode.adaptive;
    item["tokens_per_second"] = m.tokens_per_second;
    item["to_plain"]["median"] = m.to_plain;
    item["to_plain"]["min"] = m.to_plain_min;
    item["to_plain"]["max"] = m.to_plain_max;
    item["tokens_per_step"] = m.tokens_per_step;
    item["drafted_per_step"] = m.drafted_per_step;
    json["measurements"].push_back(std::move(item));
  }
  return json;
}

Json ConcurrencyJson(const std::vector<ConcurrencyMeasurement>& all) {
  Json json = Json::array();
  for (const ConcurrencyMeasurement& m : all) {
    Json item;
    item["streams"] = m.streams;
    item["output_tokens"] = m.output_tokens;
    item["seconds"] = m.seconds;
    item["tokens_per_second"] = m.tokens_per_second;
    item["inter_token_seconds"] = LatencyJson(m.inter_token);
    item["first_token_seconds"] = LatencyJson(m.first_token);
    json.push_back(std::move(item));
  }
  return json;
}

Json StallJson(const std::vector<StallMeasurement>& all) {
  Json json = Json::array();
  for (const StallMeasurement& m : all) {
    Json item;
    item["chunk"] = m.chunk;
    item["long_tokens"] = m.long_tokens;
    item["long_ttft_seconds"] = m.long_ttft_seconds;
    item["gaps_beside"] = m.gaps_beside;
    item["alone_seconds"] = LatencyJson(m.alone);
    item["beside_seconds"] = LatencyJson(m.beside);
    json.push_back(std::move(item));
  }
  return json;
}

Json MixedJson(const MixedResult& result) {
  Json json;
  json["sessions"] = result.options.sessions;
  json["users"] = result.options.users;
  json["requests"] = result.requests;
  json["aborted"] = result.aborted;
  json["output_tokens"] = result.output_tokens;
  json["state_budget_bytes"] = result.state_budget_bytes;
  json["state_held_peak_bytes"] = result.state_held_peak_bytes;
  json["resident_warm_bytes"] = result.resident_warm_bytes;
  json["resident_peak_bytes"] = result.resident_peak_bytes;
  json["resident_growth_bytes"] = result.GrowthBytes();
  return json;
}

}  // namespace

std::vector<Bar> Bars(const ServingReport& report) {
  std::vector<Bar> bars;
  if (report.conversation.has_value()) {
    bars.push_back({.what = "conversation: computed over new tokens, per turn",
                    .value = report.conversation->computed_per_new,
                    .bar = kMostComputedPerNew});
    bars.push_back({.what = "conversation: second turn's TTFT over the first's",
                    .value = report.conversation->second_turn_share,
                    .bar = kMostSecondTurnShare});
  }
  for (const PrefixResult& result : report.prefix) {
    bars.push_back(
        {.what = absl::StrCat("prefix, ", result.boundary ? "" : "no ",
                              "boundary given: computed over least tokens"),
         .value = result.ComputedShare(),
         .bar = kMostPrefixShare});
  }
  if (report.drafts.has_value()) {
    for (const DraftsMeasurement& m : report.drafts->measurements) {
      if (!m.mode.adaptive) continue;
      bars.push_back({.what = absl::StrCat("drafts, batch ", m.batch,
                                           ": adaptive over plain speed"),
                      .value = m.to_plain,
                      .bar = kLeastToPlain,
                      .at_least = true});
    }
  }
  if (report.mixed.has_value()) {
    bars.push_back(
        {.what = "mixed: most bytes of states held",
         .value = static_cast<double>(report.mixed->state_held_peak_bytes),
         .bar = static_cast<double>(report.mixed->state_budget_bytes)});
    bars.push_back({.what = "mixed: growth of resident bytes",
                    .value = static_cast<double>(report.mixed->GrowthBytes()),
                    .bar = static_cast<double>(kMostGrowthBytes)});
  }
  return bars;
}

std::string ServingText(const ServingReport& report) {
  std::string text = absl::StrFormat(
      "%s, context %d\n%s, kernels %s, %d threads\n", report.model_dir,
      report.context, report.cpu, report.isa, report.threads);
  if (report.conversation.has_value()) {
    text += ConversationText(*report.conversation);
  }
  if (!report.prefix.empty()) text += PrefixText(report.prefix);
  if (report.drafts.has_value()) text += DraftsText(*report.drafts);
  if (!report.concurrency.empty()) text += ConcurrencyText(report.concurrency);
  if (!report.stall.empty()) text += StallText(report.stall);
  if (report.mixed.has_value()) text += MixedText(*report.mixed);
  const std::vector<Bar> bars = Bars(report);
  if (!bars.empty()) text += "\n";
  for (const Bar& bar : bars) {
    absl::StrAppendFormat(&text, "%-6s %-60s %.4g (%s %.4g)\n",
                          bar.met() ? "met" : "MISSED", bar.what, bar.value,
                          bar.at_least ? "at least" : "at most", bar.bar);
  }
  return text;
}

std::string ServingJson(const ServingReport& report) {
  Json json;
  json["schema"] = kSchemaVersion;
  json["version"] = std::string(kVersion);
  json["model"]["directory"] = report.model_dir;
  json["model"]["fingerprint"] = report.fingerprint;
  json["model"]["context"] = report.context;
  json["setting"]["cpu"] = report.cpu;
  json["setting"]["isa"] = report.isa;
  json["setting"]["threads"] = report.threads;
  if (report.conversation.has_value()) {
    json["conversation"] = ConversationJson(*report.conversation);
  }
  if (!report.prefix.empty()) json["prefix"] = PrefixJson(report.prefix);
  if (report.drafts.has_value()) json["drafts"] = DraftsJson(*report.drafts);
  if (!report.concurrency.empty()) {
    json["concurrency"] = ConcurrencyJson(report.concurrency);
  }
  if (!report.stall.empty()) json["stall"] = StallJson(report.stall);
  if (report.mixed.has_value()) json["mixed"] = MixedJson(*report.mixed);
  json["bars"] = Json::array();
  for (const Bar& bar : Bars(report)) {
    Json item;
    item["what"] = bar.what;
    item["value"] = bar.value;
    item[bar.at_least ? "at_least" : "at_most"] = bar.bar;
    item["met"] = bar.met();
    json["bars"].push_back(std::move(item));
  }
  return DumpJson(json) + "\n";
}

}  // namespace switchyard::bench

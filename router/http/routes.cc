#include "router/http/routes.h"

#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"

namespace switchyard::router {
namespace {

int HexDigit(char c) {
  return absl::ascii_isdigit(static_cast<unsigned char>(c))
             ? c - '0'
             : absl::ascii_tolower(static_cast<unsigned char>(c)) - 'a' + 10;
}

// "a%2Fb" -> "a/b"; what is no escape stays.
std::string PercentDecode(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() &&
        absl::ascii_isxdigit(static_cast<unsigned char>(text[i + 1])) &&
        absl::ascii_isxdigit(static_cast<unsigned char>(text[i + 2]))) {
      out +=
          static_cast<char>(HexDigit(text[i + 1]) * 16 + HexDigit(text[i + 2]));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

bool IsVariable(absl::string_view segment) {
  return absl::StartsWith(segment, "{");
}
bool TakesTheRest(absl::string_view segment) {
  return absl::EndsWith(segment, "...}");
}

// What the variables stand for, or nothing if the path is another.
absl::optional<std::vector<std::string>> MatchSegments(
    absl::Span<const std::string> pattern,
    absl::Span<const absl::string_view> path) {
  std::vector<std::string> variables;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (i >= path.size()) return absl::nullopt;
    if (!IsVariable(pattern[i])) {
      if (pattern[i] != path[i]) return absl::nullopt;
      continue;
    }
    if (TakesTheRest(pattern[i])) {
      const std::string rest = absl::StrJoin(path.subspan(i), "/");
      if (rest.empty()) return absl::nullopt;
      variables.push_back(PercentDecode(rest));
      return variables;
    }
    if (path[i].empty()) return absl::nullopt;
    variables.push_back(PercentDecode(path[i]));
  }
  if (pattern.size() != path.size()) return absl::nullopt;
  return variables;
}

}  // namespace

void Routes::Add(absl::string_view method, absl::string_view pattern,
                 RouteHandler handler) {
  routes_.push_back({std::string(method), std::string(pattern),
                     absl::StrSplit(pattern, '/'), std::move(handler)});
}

Routes::Match Routes::Find(absl::string_view method,
                           absl::string_view path) const {
  const std::vector<absl::string_view> segments = absl::StrSplit(path, '/');
  Match match;
  std::vector<std::string> methods;
  for (const Route& route : routes_) {
    // All methods of one path are added under one pattern.
    if (!match.pattern.empty() && route.pattern != match.pattern) continue;
    auto variables = MatchSegments(route.segments, segments);
    if (!variables) continue;
    match.pattern = route.pattern;
    methods.push_back(route.method);
    if (route.method == "GET") methods.emplace_back("HEAD");
    if (route.method == method || (method == "HEAD" && route.method == "GET")) {
      match.handler = &route.handler;
    }
    match.variables = *std::move(variables);
  }
  if (match.pattern.empty()) return match;
  methods.emplace_back("OPTIONS");
  match.allowed = absl::StrJoin(methods, ", ");
  return match;
}

}  // namespace switchyard::router

#include "grammar/formats.h"

#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

namespace switchyard::grammar {
namespace {

using Expressions = absl::flat_hash_map<std::string, std::string>;

Expressions MakeExpressions() {
  const std::string year = "(?:[1-9][0-9]{3})";
  // February 29th in leap years only.
  const std::string leap_year =
      "(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|"
      "(?:[2468][048]|[13579][26])00)";
  const std::string date =
      absl::StrCat("(?:", year,
                   "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|"
                   "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|"
                   "02-(?:0[1-9]|1[0-9]|2[0-8]))|",
                   leap_year, "-02-29)");
  const std::string clock =
      "(?:(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?)";
  const std::string zone = "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
  const std::string octet = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
  const std::string ipv4 = absl::StrCat("(?:", octet, "\\.){3}", octet);
  const std::string label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?";
  const std::string host = absl::StrCat(label, "(?:\\.", label, "){0,5}");
  const std::string h16 = "[0-9A-Fa-f]{1,4}";
  // All eight groups, or :: with up to seven in all around it.
  std::string ipv6 = absl::StrCat("(?:", h16, ":){7}", h16);
  for (int before = 0; before <= 6; ++before) {
    const std::string head =
        before == 0 ? ""
                    : absl::StrCat(h16, "(?::", h16, "){", before - 1, "}");
    absl::StrAppend(&ipv6, "|", head, "::");
    absl::StrAppend(&ipv6, "(?:", h16, "(?::", h16, "){0,", 6 - before, "})?");
  }
  const std::string uri_char =
      "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})";
  const std::string uri_tail =
      absl::StrCat("(?:/", uri_char, "*)*(?:\\?(?:", uri_char,
                   "|[/?])*)?(?:#(?:", uri_char, "|[/?])*)?");
  const std::string uri = absl::StrCat("[A-Za-z][A-Za-z0-9+.-]{0,15}://", host,
                                       "(?::[0-9]{1,4})?", uri_tail);
  const std::string hex = "[0-9a-fA-F]";
  // Weeks alone, or the other units in their order, at least one.
  std::string time =
      "T(?:[0-9]{1,9}H(?:[0-9]{1,9}M(?:[0-9]{1,9}S)?)?|"
      "[0-9]{1,9}M(?:[0-9]{1,9}S)?|[0-9]{1,9}S)";
  const std::string duration = absl::StrCat(
      "P(?:[0-9]{1,9}W|(?:[0-9]{1,9}Y(?:[0-9]{1,9}M(?:[0-9]{1,9}D)?)?|"
      "[0-9]{1,9}M(?:[0-9]{1,9}D)?|[0-9]{1,9}D)(?:",
      time, ")?|", time, ")");
  const std::string atom = "[A-Za-z0-9_+-]{1,16}";
  return {
      {"date", date},
      {"time", absl::StrCat(clock, zone)},
      {"date-time", absl::StrCat(date, "T", clock, zone)},
      {"duration", duration},
      {"email", absl::StrCat(atom, "(?:\\.", atom, "){0,2}@", host)},
      {"hostname", host},
      {"ipv4", ipv4},
      {"ipv6", ipv6},
      {"uri", uri},
      {"uuid", absl::StrCat(hex, "{8}-", hex, "{4}-", hex, "{4}-", hex, "{4}-",
                            hex, "{12}")},
  };
}

}  // namespace

absl::string_view FormatExpression(absl::string_view format) {
  static const Expressions* const expressions =
      new Expressions(MakeExpressions());
  const auto it = expressions->find(std::string(format));
  return it == expressions->end() ? absl::string_view() : it->second;
}

}  // namespace switchyard::grammar

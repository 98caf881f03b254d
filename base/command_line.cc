#include "base/command_line.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <utility>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/reflection.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "base/version.h"

namespace switchyard {
namespace {

// By name, with underscores.
using Flags = std::map<std::string, absl::CommandLineFlag*, std::less<>>;

// Only the flags that this tree defines: Abseil and newer gRPC bring their own,
// which nobody should meet in --help. They are told by their sources' folders;
// ours cannot be, since a compiler cache may spell some files' paths from the
// root and others from the build folder.
bool IsOwn(const absl::CommandLineFlag& flag) {
  const std::string file = flag.Filename();
  return !absl::StrContains(file, "absl/flags/") &&
         !absl::StrContains(file, "src/core/");
}

Flags OwnFlags() {
  Flags own;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (flag->IsRetired() || !IsOwn(*flag)) continue;
    own.emplace(std::string(name), flag);
  }
  return own;
}

std::string WithUnderscores(absl::string_view name) {
  return absl::StrReplaceAll(name, {{"-", "_"}});
}

std::string WithHyphens(absl::string_view name) {
  return absl::StrCat("--", absl::StrReplaceAll(name, {{"_", "-"}}));
}

[[noreturn]] void PrintHelpAndExit(absl::string_view usage,
                                   const Flags& flags) {
  std::string text = absl::StrCat(absl::StripSuffix(usage, "\n"), "\n\n");
  absl::StrAppend(&text, "Flags (or SWITCHYARD_<NAME> in the environment):\n");
  for (const auto& [name, flag] : flags) {
    const std::string value = flag->DefaultValue();
    absl::StrAppend(&text, "  ", WithHyphens(name), "\n      ",
                    absl::StrReplaceAll(flag->Help(), {{"\n", "\n      "}}),
                    "\n      default: ", value.empty() ? "\"\"" : value, "\n");
  }
  std::fputs(text.c_str(), stdout);
  std::exit(0);  // NOLINT(concurrency-mt-unsafe): before any thread starts
}

[[noreturn]] void PrintVersionAndExit() {
  std::printf("switchyard %s\n", kVersion);
  std::exit(0);  // NOLINT(concurrency-mt-unsafe): before any thread starts
}

absl::Status UnknownFlag(absl::string_view argument, absl::string_view name,
                         const Flags& flags) {
  std::vector<std::string> names;
  for (const auto& [known, flag] : flags) names.push_back(known);
  const std::string nearest = NearestName(name, names);
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown flag ", argument,
      nearest.empty()
          ? "; --help lists all"
          : absl::StrCat("; did you mean ", WithHyphens(nearest), "?")));
}

absl::Status SetFlag(absl::CommandLineFlag* flag, absl::string_view value,
                     absl::string_view source) {
  std::string error;
  if (flag->ParseFrom(value, &error)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(source, ": ", error));
}

// Sets the flags that are not among `given` from the environment.
absl::Status SetFromEnvironment(
    const Flags& flags, const std::map<std::string, bool, std::less<>>& given) {
  for (const auto& [name, flag] : flags) {
    if (given.count(name) > 0) continue;
    const std::string variable =
        absl::StrCat("SWITCHYARD_", absl::AsciiStrToUpper(name));
    // NOLINTNEXTLINE(concurrency-mt-unsafe): before any thread starts
    const char* const value = std::getenv(variable.c_str());
    if (value == nullptr) continue;
    const absl::Status status =
        SetFlag(flag, value, absl::StrCat("environment variable ", variable));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseCommandLine(
    int argc, char** argv, absl::string_view usage) {
  const Flags flags = OwnFlags();
  std::map<std::string, bool, std::less<>> given;
  std::vector<std::string> positional;
  for (int i = 1; i < argc; ++i) {
    const absl::string_view argument = argv[i];
    if (argument == "--") {
      positional.insert(positional.end(), argv + i + 1, argv + argc);
      break;
    }
    if (!absl::StartsWith(argument, "-") || argument == "-") {
      positional.emplace_back(argument);
      continue;
    }
    absl::string_view body = argument;
    absl::ConsumePrefix(&body, "-");
    absl::ConsumePrefix(&body, "-");
    const size_t equals = body.find('=');
    const bool has_value = equals != absl::string_view::npos;
    const std::string name = WithUnderscores(body.substr(0, equals));
    absl::string_view value =
        has_value ? body.substr(equals + 1) : absl::string_view();

    auto found = flags.find(name);
    if (found == flags.end()) {
      if (name == "help") PrintHelpAndExit(usage, flags);
      if (name == "version") PrintVersionAndExit();
      // --nofoo and --no-foo turn --foo off.
      absl::string_view positive = name;
      if (!has_value && absl::ConsumePrefix(&positive, "no")) {
        absl::ConsumePrefix(&positive, "_");
        found = flags.find(positive);
      }
      if (found == flags.end() || !found->second->IsOfType<bool>()) {
        return UnknownFlag(argument.substr(0, argument.find('=')), name, flags);
      }
      value = "false";
    } else if (!has_value) {
      if (found->second->IsOfType<bool>()) {
        value = "true";
      } else if (i + 1 < argc && !absl::StartsWith(argv[i + 1], "--")) {
        value = argv[++i];
      } else {
        return absl::InvalidArgumentError(absl::StrCat(
            "flag ", argument, " needs a value: ", argument, "=VALUE"));
      }
    }
    const absl::Status status = SetFlag(
        found->second, value, absl::StrCat("flag ", WithHyphens(found->first)));
    if (!status.ok()) return status;
    given[found->first] = true;
  }
  const absl::Status status = SetFromEnvironment(flags, given);
  if (!status.ok()) return status;
  return positional;
}

std::string NearestName(absl::string_view name,
                        absl::Span<const std::string> candidates) {
  std::string nearest;
  size_t least = name.size() / 2 + 1;  // more than half: not near
  std::vector<size_t> row;
  for (const std::string& candidate : candidates) {
    // Levenshtein's distance, one row of the table at a time.
    row.resize(candidate.size() + 1);
    for (size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= name.size(); ++i) {
      size_t diagonal = std::exchange(row[0], i);
      for (size_t j = 1; j < row.size(); ++j) {
        const size_t substituted =
            diagonal + (name[i - 1] == candidate[j - 1] ? 0 : 1);
        diagonal = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
      }
    }
    if (row.back() < least) {
      least = row.back();
      nearest = candidate;
    }
  }
  return nearest;
}

}  // namespace switchyard

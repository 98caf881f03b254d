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
#include "base/json.h"
#include "base/mapped_file.h"
#include "base/version.h"

namespace switchyard {
namespace {

constexpr int64_t kMaxConfigBytes = 1 << 20;

// Other servers' names for what some program here has a flag for.
constexpr std::pair<const char*, const char*> kAliases[] = {
    {"model_path", "model"},
    {"max_model_len", "context_length"},
    {"max_num_seqs", "max_running_requests"},
    {"max_num_batched_tokens", "chunked_prefill_size"},
    {"max_num_queued_reqs", "max_queued_requests"},
    {"enable_prefix_caching", "prefix_caching"},
    {"shutdown_timeout", "drain_timeout"},
    {"sse_keep_alive_interval", "sse_ping_interval"},
};

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
  absl::StrAppend(
      &text,
      "Flags (or SWITCHYARD_<NAME> in the environment, or members of the JSON "
      "object\nin the file that --config=FILE names; the command line counts "
      "most, then the\nenvironment):\n");
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

// By its name or by another server's; end() if it is neither.
Flags::const_iterator FindFlag(const Flags& flags, absl::string_view name) {
  const auto found = flags.find(name);
  if (found != flags.end()) return found;
  for (const auto& [alias, own] : kAliases) {
    if (name == alias) return flags.find(own);
  }
  return flags.end();
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

using Given = std::map<std::string, bool, std::less<>>;

// A member of a config file as a flag's text; lists are joined by commas.
absl::StatusOr<std::string> ConfigText(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean() || value.is_number()) return DumpJson(value);
  if (!value.is_array()) {
    return absl::InvalidArgumentError(
        "must be text, a number, true or false, or a list of those");
  }
  std::string text;
  for (const Json& element : value) {
    if (element.is_structured()) {
      return absl::InvalidArgumentError("must not have lists in lists");
    }
    const absl::StatusOr<std::string> part = ConfigText(element);
    if (!part.ok()) return part;
    absl::StrAppend(&text, text.empty() ? "" : ",", *part);
  }
  return text;
}

// Sets the flags that are not among `given` from a JSON object: members are
// flags, with hyphens or underscores. null leaves the default.
absl::Status SetFromConfig(const std::string& path, const Flags& flags,
                           const Given& given) {
  const auto fail = [&](absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat("--config=", path, ": ", what));
  };
  const absl::StatusOr<std::string> text = ReadFile(path, kMaxConfigBytes);
  if (!text.ok()) return text.status();
  const absl::StatusOr<Json> config = ParseJson(*text);
  if (!config.ok()) return fail(config.status().message());
  if (!config->is_object()) return fail("must hold a JSON object");
  for (const auto& [key, value] : config->items()) {
    const auto found = FindFlag(flags, WithUnderscores(key));
    if (found == flags.end()) {
      return fail(UnknownFlag(key, WithUnderscores(key), flags).message());
    }
    if (value.is_null() || given.count(found->first) > 0) continue;
    const absl::StatusOr<std::string> setting = ConfigText(value);
    if (!setting.ok()) {
      return fail(absl::StrCat(key, ": ", setting.status().message()));
    }
    const absl::Status status = SetFlag(
        found->second, *setting, absl::StrCat("--config=", path, ": ", key));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// Sets the flags that are not among `given` from the environment, and adds them
// to it.
absl::Status SetFromEnvironment(const Flags& flags, Given* given) {
  for (const auto& [name, flag] : flags) {
    if (given->count(name) > 0) continue;
    const std::string variable =
        absl::StrCat("SWITCHYARD_", absl::AsciiStrToUpper(name));
    // NOLINTNEXTLINE(concurrency-mt-unsafe): before any thread starts
    const char* const value = std::getenv(variable.c_str());
    if (value == nullptr) continue;
    const absl::Status status =
        SetFlag(flag, value, absl::StrCat("environment variable ", variable));
    if (!status.ok()) return status;
    (*given)[name] = true;
  }
  return absl::OkStatus();
}

// The file that the environment names, if the command line does not.
std::string ConfigPath(const std::string& given) {
  if (!given.empty()) return given;
  // NOLINTNEXTLINE(concurrency-mt-unsafe): before any thread starts
  const char* const value = std::getenv("SWITCHYARD_CONFIG");
  return value == nullptr ? "" : value;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseCommandLine(
    int argc, char** argv, absl::string_view usage) {
  const Flags flags = OwnFlags();
  // It would take the files that are meant for all flags.
  SY_CHECK(flags.count("config") == 0);
  Given given;
  std::string config;
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

    auto found = FindFlag(flags, name);
    if (name == "config") {
      if (!has_value && i + 1 < argc) value = argv[++i];
      if (value.empty()) {
        return absl::InvalidArgumentError("--config needs a file's name");
      }
      config = std::string(value);
      continue;
    }
    if (found == flags.end()) {
      if (name == "help") PrintHelpAndExit(usage, flags);
      if (name == "version") PrintVersionAndExit();
      // --nofoo and --no-foo turn --foo off.
      absl::string_view positive = name;
      if (!has_value && absl::ConsumePrefix(&positive, "no")) {
        absl::ConsumePrefix(&positive, "_");
        found = FindFlag(flags, positive);
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
  absl::Status status = SetFromEnvironment(flags, &given);
  config = ConfigPath(config);
  if (status.ok() && !config.empty()) {
    status = SetFromConfig(config, flags, given);
  }
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

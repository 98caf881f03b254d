#include "base/command_line.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/flags/commandlineflag.h"
#include "absl/flags/marshalling.h"
#include "absl/flags/reflection.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "base/flag_aliases.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "base/version.h"

namespace switchyard {
namespace {

constexpr int64_t kMaxConfigBytes = 1 << 20;

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

// Other servers' names of a flag, for people.
std::string OtherNames(absl::string_view flag) {
  std::vector<std::string> names;
  for (const FlagAlias& alias : FlagAliases()) {
    if (flag != alias.flag) continue;
    names.push_back(
        WithHyphens(absl::StrCat(alias.negated ? "no_" : "", alias.name)));
  }
  return absl::StrJoin(names, ", ");
}

[[noreturn]] void PrintHelpAndExit(absl::string_view usage,
                                   const Flags& flags) {
  std::string text = absl::StrCat(absl::StripSuffix(usage, "\n"), "\n\n");
  if (flags.empty()) {
    absl::StrAppend(&text, "--help behind a command lists its flags.\n");
  } else {
    absl::StrAppend(
        &text,
        "Flags (or SWITCHYARD_<NAME> in the environment, or members of the "
        "JSON object\nin the file that --config=FILE names; the command line "
        "counts most, then the\nenvironment):\n");
  }
  for (const auto& [name, flag] : flags) {
    const std::string value = flag->DefaultValue();
    absl::StrAppend(&text, "  ", WithHyphens(name), "\n      ",
                    absl::StrReplaceAll(flag->Help(), {{"\n", "\n      "}}),
                    "\n      default: ", value.empty() ? "\"\"" : value, "\n");
    if (const std::string others = OtherNames(name); !others.empty()) {
      absl::StrAppend(&text, "      also: ", others, "\n");
    }
  }
  std::fputs(text.c_str(), stdout);
  std::exit(0);  // NOLINT(concurrency-mt-unsafe): before any thread starts
}

[[noreturn]] void PrintVersionAndExit() {
  std::printf("switchyard %s\n", kVersion);
  std::exit(0);  // NOLINT(concurrency-mt-unsafe): before any thread starts
}

// A flag by its name or by another server's.
struct Found {
  std::string name;                       // ours
  absl::CommandLineFlag* flag = nullptr;  // null: it is neither
  bool negated = false;                   // FlagAlias::negated

  bool boolean() const { return flag != nullptr && flag->IsOfType<bool>(); }
};

Found FindFlag(const Flags& flags, absl::string_view name) {
  if (const auto own = flags.find(name); own != flags.end()) {
    return {own->first, own->second};
  }
  for (const FlagAlias& alias : FlagAliases()) {
    if (name != alias.name) continue;
    if (const auto own = flags.find(alias.flag); own != flags.end()) {
      return {own->first, own->second, alias.negated};
    }
  }
  return {};
}

absl::Status UnknownFlag(absl::string_view argument, absl::string_view name,
                         const Flags& flags) {
  absl::string_view positive = name;
  absl::ConsumePrefix(&positive, "no_");
  for (const absl::string_view foreign : {name, positive}) {
    const absl::string_view instead = InsteadOfFlag(foreign);
    if (instead.empty()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("flag ", argument, " has no place here: ", instead));
  }
  std::vector<std::string> names;
  for (const auto& [known, flag] : flags) names.push_back(known);
  const std::string nearest = NearestName(name, names);
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown flag ", argument,
      nearest.empty()
          ? "; --help lists all"
          : absl::StrCat("; did you mean ", WithHyphens(nearest), "?")));
}

absl::Status SetFlag(const Found& found, absl::string_view value,
                     absl::string_view source) {
  std::string text(value);
  double seconds = 0;
  if (found.flag->IsOfType<absl::Duration>() &&
      absl::SimpleAtod(value, &seconds)) {
    text += "s";
  }
  if (found.negated) {
    // The flag's own parser knows what is a boolean.
    bool opposite = false;
    std::string error;
    if (absl::ParseFlag(text, &opposite, &error)) {
      text = opposite ? "false" : "true";
    }
  }
  std::string error;
  if (found.flag->ParseFrom(text, &error)) return absl::OkStatus();
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
    const Found found = FindFlag(flags, WithUnderscores(key));
    if (found.flag == nullptr) {
      return fail(UnknownFlag(key, WithUnderscores(key), flags).message());
    }
    if (value.is_null() || given.count(found.name) > 0) continue;
    const absl::StatusOr<std::string> setting = ConfigText(value);
    if (!setting.ok()) {
      return fail(absl::StrCat(key, ": ", setting.status().message()));
    }
    const absl::Status status =
        SetFlag(found, *setting, absl::StrCat("--config=", path, ": ", key));
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
        SetFlag({.name = name, .flag = flag}, value,
                absl::StrCat("environment variable ", variable));
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

// An argument that begins with a hyphen.
struct Argument {
  std::string name;  // with underscores
  bool has_value = false;
  absl::string_view value;
};

Argument SplitArgument(absl::string_view body) {
  absl::ConsumePrefix(&body, "-");
  absl::ConsumePrefix(&body, "-");
  const size_t equals = body.find('=');
  Argument split;
  split.name = WithUnderscores(body.substr(0, equals));
  split.has_value = equals != absl::string_view::npos;
  if (split.has_value) split.value = body.substr(equals + 1);
  return split;
}

// Sets the flag that `argument`, which `split` is, stands for, or the path of
// the config file. `next` is the argument behind it, null if there is none:
// its value, perhaps.
absl::Status ReadFlag(absl::string_view argument, const Argument& split,
                      const char* next, const Flags& flags, Given* given,
                      std::string* config, bool* took_next) {
  absl::string_view value = split.value;
  if (split.name == "config") {
    *took_next = !split.has_value && next != nullptr;
    if (*took_next) value = next;
    *config = std::string(value);
    return config->empty()
               ? absl::InvalidArgumentError("--config needs a file's name")
               : absl::OkStatus();
  }
  Found found = FindFlag(flags, split.name);
  if (found.flag == nullptr) {
    // --nofoo and --no-foo turn --foo off.
    absl::string_view positive = split.name;
    if (!split.has_value && absl::ConsumePrefix(&positive, "no")) {
      absl::ConsumePrefix(&positive, "_");
      found = FindFlag(flags, positive);
    }
    if (!found.boolean()) {
      return UnknownFlag(argument.substr(0, argument.find('=')), split.name,
                         flags);
    }
    value = "false";
  } else if (!split.has_value) {
    *took_next =
        !found.boolean() && next != nullptr && !absl::StartsWith(next, "--");
    if (!found.boolean() && !*took_next) {
      return absl::InvalidArgumentError(absl::StrCat(
          "flag ", argument, " needs a value: ", argument, "=VALUE"));
    }
    value = found.boolean() ? "true" : next;
  }
  const absl::Status status =
      SetFlag(found, value, absl::StrCat("flag ", WithHyphens(found.name)));
  if (status.ok()) (*given)[found.name] = true;
  return status;
}

// The command that the first arguments name, the one of most words; null: none.
const CommandFlags* FindCommand(absl::Span<const CommandFlags> commands,
                                absl::Span<const std::string> arguments) {
  const CommandFlags* longest = nullptr;
  size_t most = 0;
  for (const CommandFlags& command : commands) {
    const std::vector<std::string> words = absl::StrSplit(command.name, ' ');
    if (words.size() <= most || words.size() > arguments.size() ||
        !std::equal(words.begin(), words.end(), arguments.begin())) {
      continue;
    }
    longest = &command;
    most = words.size();
  }
  return longest;
}

[[noreturn]] void HelpWithCommandAndExit(
    absl::string_view usage, absl::Span<const CommandFlags> commands,
    absl::Span<const std::string> arguments, const Flags& flags) {
  if (commands.empty()) PrintHelpAndExit(usage, flags);
  const CommandFlags* const command = FindCommand(commands, arguments);
  if (command == nullptr) PrintHelpAndExit(usage, {});
  Flags taken;
  for (const std::string& name : command->flags)
    taken.insert(*flags.find(name));
  PrintHelpAndExit(command->usage, taken);
}

// That the command takes all of `given`.
absl::Status CheckTaken(absl::Span<const CommandFlags> commands,
                        absl::Span<const std::string> arguments,
                        const Given& given) {
  const CommandFlags* const command = FindCommand(commands, arguments);
  if (command == nullptr) return absl::OkStatus();
  for (const auto& [name, is_given] : given) {
    if (absl::c_linear_search(command->flags, name)) continue;
    const absl::string_view instead = InsteadOfFlag(name);
    return absl::InvalidArgumentError(absl::StrCat(
        "the command '", command->name, "' takes no flag ", WithHyphens(name),
        instead.empty() ? "; --help behind it lists those that it does"
                        : absl::StrCat(": ", instead)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseCommandLine(
    int argc, char** argv, absl::string_view usage) {
  return ParseCommandLine(argc, argv, usage, {});
}

absl::StatusOr<std::vector<std::string>> ParseCommandLine(
    int argc, char** argv, absl::string_view usage,
    absl::Span<const CommandFlags> commands) {
  const Flags flags = OwnFlags();
  for (const CommandFlags& command : commands) {
    for (const std::string& name : command.flags) {
      SY_CHECK(flags.count(name) > 0);
    }
  }
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
    const Argument split = SplitArgument(argument);
    if (split.name == "help" && flags.count("help") == 0) {
      // Behind it too a command may be named.
      for (int next = i + 1; next < argc && argv[next][0] != '-'; ++next) {
        positional.emplace_back(argv[next]);
      }
      HelpWithCommandAndExit(usage, commands, positional, flags);
    }
    if (split.name == "version" && flags.count("version") == 0) {
      PrintVersionAndExit();
    }
    const char* const next = i + 1 < argc ? argv[i + 1] : nullptr;
    bool took_next = false;
    const absl::Status status =
        ReadFlag(argument, split, next, flags, &given, &config, &took_next);
    if (!status.ok()) return status;
    if (took_next) ++i;
  }
  absl::Status status = CheckTaken(commands, positional, given);
  if (status.ok()) status = SetFromEnvironment(flags, &given);
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

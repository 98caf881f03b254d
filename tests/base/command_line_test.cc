#include "base/command_line.h"

#include <stdlib.h>

#include <cstdint>
#include <fstream>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/reflection.h"
#include "absl/time/time.h"
#include "base/flag_aliases.h"
#include "base/version.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

ABSL_FLAG(std::string, served_model_name, "default", "The model's name.");
ABSL_FLAG(int32_t, port, 8000, "Where to listen.\nSecond line.");
ABSL_FLAG(bool, prefix_caching, true, "Keep prefixes.");
ABSL_FLAG(bool, disable_radix_cache, false, "Keep no prefixes.");
ABSL_FLAG(int64_t, max_running_requests, 64, "In one step.");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Seconds(1), "To end.");
ABSL_FLAG(bool, verbose, false, "Say more.");

namespace switchyard {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::IsOkAndHolds;
using ::switchyard::testing::StatusIs;
using ::testing::_;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::ExitedWithCode;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

absl::StatusOr<std::vector<std::string>> Parse(std::vector<std::string> args) {
  args.insert(args.begin(), "/usr/bin/program");
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  return ParseCommandLine(static_cast<int>(argv.size()), argv.data(),
                          "Usage: program [flags]\n");
}

class CommandLineTest : public ::testing::Test {
 protected:
  const absl::FlagSaver saver_;  // puts the flags back after each test
};

TEST_F(CommandLineTest, HyphensAndUnderscoresAreTheSame) {
  EXPECT_THAT(Parse({"--served-model-name=a", "--port", "1"}),
              IsOkAndHolds(IsEmpty()));
  EXPECT_EQ(absl::GetFlag(FLAGS_served_model_name), "a");
  EXPECT_EQ(absl::GetFlag(FLAGS_port), 1);
  EXPECT_THAT(Parse({"--served_model_name", "b", "-port=2"}), IsOk());
  EXPECT_EQ(absl::GetFlag(FLAGS_served_model_name), "b");
  EXPECT_EQ(absl::GetFlag(FLAGS_port), 2);
}

TEST_F(CommandLineTest, ValuesMayBeEmptyNegativeOrHaveEqualsSigns) {
  EXPECT_THAT(Parse({"--served-model-name=", "--port", "-5"}), IsOk());
  EXPECT_EQ(absl::GetFlag(FLAGS_served_model_name), "");
  EXPECT_EQ(absl::GetFlag(FLAGS_port), -5);
  EXPECT_THAT(Parse({"--served-model-name=a=b"}), IsOk());
  EXPECT_EQ(absl::GetFlag(FLAGS_served_model_name), "a=b");
}

TEST_F(CommandLineTest, Booleans) {
  EXPECT_THAT(Parse({"--verbose", "--noprefix-caching"}), IsOk());
  EXPECT_TRUE(absl::GetFlag(FLAGS_verbose));
  EXPECT_FALSE(absl::GetFlag(FLAGS_prefix_caching));
  EXPECT_THAT(Parse({"--verbose=false", "--prefix-caching"}), IsOk());
  EXPECT_FALSE(absl::GetFlag(FLAGS_verbose));
  EXPECT_TRUE(absl::GetFlag(FLAGS_prefix_caching));
  EXPECT_THAT(Parse({"--no-prefix-caching"}), IsOk());
  EXPECT_FALSE(absl::GetFlag(FLAGS_prefix_caching));
  // Only what is boolean can be turned off.
  EXPECT_THAT(Parse({"--noport"}), StatusIs(kInvalid, HasSubstr("--noport")));
}

TEST_F(CommandLineTest, PositionalArguments) {
  EXPECT_THAT(Parse({"a", "--port=1", "-", "b", "--", "--port=2"}),
              IsOkAndHolds(ElementsAre("a", "-", "b", "--port=2")));
  EXPECT_EQ(absl::GetFlag(FLAGS_port), 1);
}

TEST_F(CommandLineTest, UnknownFlagsNameTheNearest) {
  EXPECT_THAT(Parse({"--served-model-nam=x"}),
              StatusIs(kInvalid, AllOf(HasSubstr("--served-model-nam;"),
                                       HasSubstr("--served-model-name?"))));
  EXPECT_THAT(Parse({"--prot", "1"}),
              StatusIs(kInvalid, HasSubstr("did you mean --port?")));
  EXPECT_THAT(Parse({"--zzzzzzzz"}),
              StatusIs(kInvalid, AllOf(HasSubstr("--help"),
                                       Not(HasSubstr("did you mean")))));
}

// Abseil and GoogleTest bring flags of their own, which are none of ours.
TEST_F(CommandLineTest, FlagsOfLibrariesAreUnknown) {
  for (const char* flag : {"--flagfile=x", "--gtest_filter=x", "--helpfull"}) {
    EXPECT_THAT(Parse({flag}), StatusIs(kInvalid)) << flag;
  }
}

TEST_F(CommandLineTest, BadAndMissingValues) {
  EXPECT_THAT(Parse({"--port=abc"}),
              StatusIs(kInvalid, AllOf(HasSubstr("--port"), HasSubstr("abc"))));
  EXPECT_THAT(Parse({"--port"}),
              StatusIs(kInvalid, HasSubstr("--port needs a value")));
  EXPECT_THAT(Parse({"--served-model-name", "--port=1"}),
              StatusIs(kInvalid, HasSubstr("needs a value")));
}

TEST_F(CommandLineTest, EnvironmentStandsInForTheCommandLine) {
  setenv("SWITCHYARD_PORT", "77", 1);
  setenv("SWITCHYARD_SERVED_MODEL_NAME", "from env", 1);
  EXPECT_THAT(Parse({"--served-model-name=from args"}), IsOk());
  EXPECT_EQ(absl::GetFlag(FLAGS_port), 77);
  EXPECT_EQ(absl::GetFlag(FLAGS_served_model_name), "from args");
  setenv("SWITCHYARD_PORT", "x", 1);
  EXPECT_THAT(Parse({}), StatusIs(kInvalid, HasSubstr("SWITCHYARD_PORT")));
  EXPECT_THAT(Parse({"--port=1"}), IsOk());
  unsetenv("SWITCHYARD_PORT");
  unsetenv("SWITCHYARD_SERVED_MODEL_NAME");
}

// They exit; what they print is checked by the child, on its way out.
TEST_F(CommandLineTest, AConfigFileStandsBehindBoth) {
  const testing::TempDir directory;
  const std::string path = directory.path() + "/config.json";
  const auto write = [&](const std::string& text) {
    std::ofstream(path) << text;
  };
  write(R"({"served-model-name": "file", "port": 5, "verbose": true,
            "prefix_caching": null})");
  EXPECT_THAT(Parse({"--config", path, "--port=6"}), IsOk());
  EXPECT_EQ(absl::GetFlag(FLAGS_served_model_name), "file");
  EXPECT_EQ(absl::GetFlag(FLAGS_port), 6);
  EXPECT_TRUE(absl::GetFlag(FLAGS_verbose));
  EXPECT_TRUE(absl::GetFlag(FLAGS_prefix_caching));

  ASSERT_EQ(setenv("SWITCHYARD_PORT", "7", 1), 0);
  ASSERT_EQ(setenv("SWITCHYARD_CONFIG", path.c_str(), 1), 0);
  write(R"({"served_model_name": ["a", 2], "port": 5})");
  EXPECT_THAT(Parse({}), IsOk());
  EXPECT_EQ(absl::GetFlag(FLAGS_port), 7);
  EXPECT_EQ(absl::GetFlag(FLAGS_served_model_name), "a,2");
  ASSERT_EQ(unsetenv("SWITCHYARD_PORT"), 0);
  ASSERT_EQ(unsetenv("SWITCHYARD_CONFIG"), 0);

  const std::pair<const char*, const char*> bad[] = {
      {R"({"prot": 5})", "did you mean --port?"},
      {R"({"port": "five"})", "port"},
      {R"({"port": {}})", "must be text"},
      {R"([])", "JSON object"},
      {R"({)", "config.json"},
  };
  for (const auto& [text, what] : bad) {
    write(text);
    EXPECT_THAT(Parse({"--config=" + path}),
                StatusIs(kInvalid, HasSubstr(what)))
        << text;
  }
  EXPECT_FALSE(Parse({"--config=" + path + ".missing"}).ok());
  EXPECT_THAT(Parse({"--config"}), StatusIs(kInvalid, HasSubstr("file")));
}

TEST_F(CommandLineTest, OtherServersNamesAreUnderstood) {
  EXPECT_THAT(Parse({"--max-num-seqs", "5"}), IsOk());
  EXPECT_EQ(absl::GetFlag(FLAGS_max_running_requests), 5);
  // Not where nothing of the kind is.
  EXPECT_THAT(Parse({"--max-model-len=5"}), StatusIs(kInvalid, _));
}

// vLLM's names say the opposite.
TEST_F(CommandLineTest, SomeNamesMeanTheOpposite) {
  const std::pair<const char*, bool> cases[] = {
      {"--no-enable-prefix-caching", true},
      {"--enable-prefix-caching", false},
      {"--enable-prefix-caching=false", true},
      {"--enable-prefix-caching=1", false},
      {"--disable-radix-cache", true},
      {"--no-cache-prompt", true},
  };
  for (const auto& [argument, disabled] : cases) {
    absl::SetFlag(&FLAGS_disable_radix_cache, !disabled);
    EXPECT_THAT(Parse({argument}), IsOk()) << argument;
    EXPECT_EQ(absl::GetFlag(FLAGS_disable_radix_cache), disabled) << argument;
  }
  EXPECT_THAT(Parse({"--enable-prefix-caching=often"}), StatusIs(kInvalid, _));
  const testing::TempDir directory;
  const std::string path = directory.File("config.json");
  std::ofstream(path) << R"({"enable-prefix-caching": false})";
  EXPECT_THAT(Parse({"--config=" + path}), IsOk());
  EXPECT_TRUE(absl::GetFlag(FLAGS_disable_radix_cache));
}

TEST_F(CommandLineTest, ADurationWithoutAUnitIsInSeconds) {
  EXPECT_THAT(Parse({"--shutdown-timeout", "90"}), IsOk());
  EXPECT_EQ(absl::GetFlag(FLAGS_drain_timeout), absl::Seconds(90));
  EXPECT_THAT(Parse({"--drain-timeout=0.5"}), IsOk());
  EXPECT_EQ(absl::GetFlag(FLAGS_drain_timeout), absl::Milliseconds(500));
  EXPECT_THAT(Parse({"--drain-timeout=2m"}), IsOk());
  EXPECT_EQ(absl::GetFlag(FLAGS_drain_timeout), absl::Minutes(2));
  EXPECT_THAT(Parse({"--drain-timeout=soon"}), StatusIs(kInvalid, _));
}

TEST_F(CommandLineTest, FlagsWithoutAPlaceHereSayWhatToDo) {
  const std::pair<const char*, const char*> cases[] = {
      {"--tp-size=8", "switchyard-expert-worker"},
      {"--tensor-parallel-size=8", "switchyard-expert-worker"},
      {"--mem-fraction-static=0.8", "--state-memory"},
      {"--gpu-memory-utilization=0.9", "--state-memory"},
      {"--trust-remote-code", "leave it out"},
      {"--no-enable-chunked-prefill", "always on"},
      {"--tool-call-parser=qwen", "--chat-format"},
  };
  for (const auto& [argument, instead] : cases) {
    EXPECT_THAT(Parse({argument}),
                StatusIs(kInvalid, AllOf(HasSubstr("has no place here"),
                                         HasSubstr(instead))))
        << argument;
  }
}

TEST(FlagAliasesTest, EveryNameIsThereOnce) {
  std::set<std::string> names;
  for (const FlagAlias& alias : FlagAliases()) {
    EXPECT_TRUE(names.insert(alias.name).second) << alias.name;
    EXPECT_EQ(InsteadOfFlag(alias.name), "") << alias.name;
    EXPECT_STRNE(alias.name, alias.flag);
  }
}

const std::vector<CommandFlags> kCommands = {
    {"serve", "program serve\n", {"port", "disable_radix_cache"}},
    {"serve more", "program serve more\n", {"verbose"}}};

absl::StatusOr<std::vector<std::string>> ParseWithCommands(
    std::vector<std::string> args) {
  args.insert(args.begin(), "/usr/bin/program");
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  return ParseCommandLine(static_cast<int>(argv.size()), argv.data(),
                          "Usage: program COMMAND\n", kCommands);
}

TEST_F(CommandLineTest, ACommandTakesItsFlagsAndNoOthers) {
  EXPECT_THAT(ParseWithCommands({"serve", "--port=5"}),
              IsOkAndHolds(ElementsAre("serve")));
  EXPECT_THAT(
      ParseWithCommands({"--port=5", "serve", "--no-enable-prefix-caching"}),
      IsOk());
  EXPECT_THAT(ParseWithCommands({"serve", "--verbose"}),
              StatusIs(kInvalid, HasSubstr("'serve' takes no flag --verbose")));
  EXPECT_THAT(ParseWithCommands({"serve", "more", "--verbose"}), IsOk());
  EXPECT_THAT(ParseWithCommands({"serve", "more", "--port=5"}),
              StatusIs(kInvalid, HasSubstr("'serve more' takes no flag")));
  // What all commands share may say more.
  ASSERT_EQ(setenv("SWITCHYARD_VERBOSE", "true", 1), 0);
  EXPECT_THAT(ParseWithCommands({"serve"}), IsOk());
  ASSERT_EQ(unsetenv("SWITCHYARD_VERBOSE"), 0);
}

TEST_F(CommandLineTest, HelpOfACommandHasItsFlagsAlone) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto parse_and_show = [](std::vector<std::string> args) {
    ::testing::internal::CaptureStdout();
    atexit([] {
      std::fputs(::testing::internal::GetCapturedStdout().c_str(), stderr);
    });
    static_cast<void>(ParseWithCommands(std::move(args)));
  };
  for (const auto& args :
       std::vector<std::vector<std::string>>{{"serve", "--help"},
                                             {"--port=5", "serve", "--help"},
                                             {"--help", "serve"}}) {
    EXPECT_EXIT(parse_and_show(args), ExitedWithCode(0),
                AllOf(HasSubstr("program serve\n"), HasSubstr("--port"),
                      HasSubstr("also: --no-enable-prefix-caching"),
                      Not(HasSubstr("--verbose"))));
  }
  EXPECT_EXIT(parse_and_show({"serve", "more", "--help"}), ExitedWithCode(0),
              AllOf(HasSubstr("program serve more"), HasSubstr("--verbose"),
                    Not(HasSubstr("--port"))));
  EXPECT_EXIT(
      parse_and_show({"--help"}), ExitedWithCode(0),
      AllOf(HasSubstr("Usage: program COMMAND"),
            HasSubstr("--help behind a command"), Not(HasSubstr("--port"))));
}

TEST_F(CommandLineTest, HelpAndVersionExit) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto parse_and_show = [](const char* flag) {
    ::testing::internal::CaptureStdout();
    atexit([] {
      std::fputs(::testing::internal::GetCapturedStdout().c_str(), stderr);
    });
    static_cast<void>(Parse({flag}));
  };
  EXPECT_EXIT(
      parse_and_show("--help"), ExitedWithCode(0),
      AllOf(HasSubstr("Usage: program"), HasSubstr("--served-model-name"),
            HasSubstr("default: 8000"), HasSubstr("Second line."),
            Not(HasSubstr("flagfile"))));
  EXPECT_EXIT(parse_and_show("--version"), ExitedWithCode(0),
              HasSubstr(kVersion));
}

TEST(NearestNameTest, TakesTheLeastEditDistance) {
  const std::vector<std::string> names = {"port", "host", "max_batch"};
  EXPECT_EQ(NearestName("prot", names), "port");
  EXPECT_EQ(NearestName("hosts", names), "host");
  EXPECT_EQ(NearestName("max_bach", names), "max_batch");
  EXPECT_EQ(NearestName("port", names), "port");
  EXPECT_EQ(NearestName("xyz", names), "");
  EXPECT_EQ(NearestName("", names), "");
  EXPECT_EQ(NearestName("port", {}), "");
}

TEST(VersionTest, HasThreeNumbers) {
  EXPECT_THAT(kVersion, ::testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
}

}  // namespace
}  // namespace switchyard

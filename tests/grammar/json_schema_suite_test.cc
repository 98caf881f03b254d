// The public test suite of JSON Schema. A grammar may be narrower than its
// schema, but never wider: what is invalid is never taken. What is valid is
// counted.

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "base/json.h"
#include "base/mapped_file.h"
#include "gtest/gtest.h"
#include "tests/grammar/grammar_test_util.h"
#include "tests/testing/matchers.h"

namespace switchyard::grammar {
namespace {

struct Count {
  int refused = 0;  // schemas
  int schemas = 0;
  int taken = 0;  // of valid instances
  int valid = 0;
};

// oneOf is read as anyOf: alternatives that overlap.
bool Overlaps(const std::string& file, const std::string& group) {
  return file == "oneOf.json" ||
         (file == "allOf.json" && group == "allOf combined with anyOf, oneOf");
}

// What keywords a file is about that cannot be promised.
const std::set<std::string>& RefusedFiles() {
  static const auto* const files =
      new std::set<std::string>{"not.json",
                                "if-then-else.json",
                                "contains.json",
                                "uniqueItems.json",
                                "dependentRequired.json",
                                "unevaluatedProperties.json"};
  return *files;
}

TEST(JsonSchemaSuiteTest, NothingInvalidIsTaken) {
  std::map<std::string, Count> counts;
  for (const auto& entry : std::filesystem::directory_iterator(
           SWITCHYARD_SOURCE_DIR "/tests/fixtures/json_schema_suite")) {
    if (entry.path().extension() != ".json") continue;
    const std::string file = entry.path().filename().string();
    const auto text = ReadFile(entry.path().string(), 1 << 20);
    ASSERT_THAT(text, testing::IsOk());
    const auto groups = ParseJson(*text);
    ASSERT_THAT(groups, testing::IsOk());
    Count& count = counts[file];
    for (const Json& group : *groups) {
      const std::string name = group["description"].get<std::string>();
      ++count.schemas;
      const auto grammar =
          Compile(GrammarKind::kJsonSchema, DumpJson(group["schema"]));
      if (!grammar.ok()) {
        EXPECT_EQ(grammar.status().code(), absl::StatusCode::kInvalidArgument);
        EXPECT_FALSE(grammar.status().message().empty());
        ++count.refused;
        continue;
      }
      for (const Json& test : group["tests"]) {
        for (const std::string& instance :
             {DumpJson(test["data"]), DumpJsonLikePython(test["data"])}) {
          const bool taken = Matches(*grammar, instance);
          if (test["valid"] == true) {
            ++count.valid;
            count.taken += taken;
          } else if (!Overlaps(file, name)) {
            EXPECT_FALSE(taken)
                << file << ": " << name << ": " << test["description"] << "\n"
                << DumpJson(group["schema"]) << "\n"
                << instance;
          }
        }
      }
    }
  }
  Count all;
  for (const auto& [file, count] : counts) {
    std::printf("%-28s %3d of %3d schemas, %3d of %3d valid texts\n",
                file.c_str(), count.schemas - count.refused, count.schemas,
                count.taken, count.valid);
    if (RefusedFiles().count(file) > 0) continue;
    all.schemas += count.schemas;
    all.refused += count.refused;
    all.valid += count.valid;
    all.taken += count.taken;
  }
  EXPECT_GE(counts.size(), 30u);
  // Most of it, by the count when this was written.
  EXPECT_GE((all.schemas - all.refused) * 100, all.schemas * 75);
  EXPECT_GE(all.taken * 100, all.valid * 40);
}

}  // namespace
}  // namespace switchyard::grammar

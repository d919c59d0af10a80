#include "worker/config.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "tests/support/fresh_dir.h"

namespace ballast {
namespace {

using Environment = std::map<std::string, std::string>;

absl::Status Parse(std::vector<const char*> arguments, const Environment& environment, CommandLine* line) {
  arguments.insert(arguments.begin(), "ballast-worker");
  const auto look_up = [&](const char* name) {
    const auto it = environment.find(name);
    return it == environment.end() ? nullptr : it->second.c_str();
  };
  return ParseCommandLine(static_cast<int>(arguments.size()), arguments.data(), look_up, line);
}

TEST(ConfigTest, FlagsBeatTheEnvironmentWhichBeatsTheFile) {
  const std::string file = FreshDir() + "/worker.toml";
  std::ofstream(file) << "threads = 1\nname = \"file\"\nfeed-bytes = \"8M\"\n";
  CommandLine line;
  const absl::Status status =
      Parse({"--config", file.c_str(), "--threads", "3"}, {{"BALLAST_THREADS", "2"}, {"BALLAST_NAME", "environment"}}, &line);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(line.config.threads, 3u);
  EXPECT_EQ(line.config.name, "environment");
  EXPECT_EQ(line.config.feed_bytes, 8u << 20);
}

TEST(ConfigTest, PrintConfigNamesTheOriginOfEveryValue) {
  CommandLine line;
  ASSERT_TRUE(Parse({"--name", "w", "--print-config"}, {{"BALLAST_THREADS", "2"}}, &line).ok());
  EXPECT_EQ(line.action, CommandLine::Action::kPrinted);
  EXPECT_NE(line.text.find("name = \"w\"  # --name\n"), std::string::npos) << line.text;
  EXPECT_NE(line.text.find("threads = \"2\"  # BALLAST_THREADS\n"), std::string::npos) << line.text;
  EXPECT_NE(line.text.find("listen = \"127.0.0.1:0\"  # default\n"), std::string::npos) << line.text;
}

TEST(ConfigTest, UnknownKeysAndBadValuesAreErrors) {
  const std::string file = FreshDir() + "/unknown.toml";
  std::ofstream(file) << "thread = 1\n";
  CommandLine line;
  EXPECT_FALSE(Parse({"--config", file.c_str()}, {}, &line).ok());
  EXPECT_FALSE(Parse({"--threads", "many"}, {}, &line).ok());
  EXPECT_FALSE(Parse({"--feed-bytes", "1X"}, {}, &line).ok());
  EXPECT_FALSE(Parse({"--no-such-flag"}, {}, &line).ok());
}

TEST(ConfigTest, ModelsOfAnotherMachineMustBeTrustedExplicitly) {
  CommandLine line;
  const absl::Status refused = Parse({"--server", "10.0.0.1:7070"}, {}, &line);
  EXPECT_NE(std::string(refused.message()).find("--trust-models"), std::string::npos) << refused;
  EXPECT_TRUE(Parse({"--server", "10.0.0.1:7070", "--trust-models", "on"}, {}, &line).ok());
  EXPECT_TRUE(Parse({"--server", "127.0.0.1:7070"}, {}, &line).ok());
  EXPECT_TRUE(Parse({"--server", "localhost:7070"}, {}, &line).ok());
}

}  // namespace
}  // namespace ballast

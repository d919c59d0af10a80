#include "server/config.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "tests/support/fresh_dir.h"

namespace ballast {
namespace {

struct Parsed {
  absl::Status status;
  CommandLine command;
};

Parsed Parse(std::vector<const char*> arguments, std::map<std::string, std::string> environment = {}) {
  arguments.insert(arguments.begin(), "ballast-server");
  Parsed parsed;
  const auto look_up = [&](const char* name) { return environment.contains(name) ? environment[name].c_str() : nullptr; };
  parsed.status = ParseCommandLine(static_cast<int>(arguments.size()), arguments.data(), look_up, &parsed.command);
  return parsed;
}

std::string TomlFile(const std::string& text) {
  const std::string path = FreshDir() + "/server.toml";
  std::ofstream(path) << text;
  return path;
}

TEST(ConfigTest, FlagBeatsVariableBeatsFileBeatsDefault) {
  const std::string file = TomlFile("dir = \"/file\"\nlisten = \"127.0.0.1:1\"\nqueue-bytes = \"1M\"\n");
  const Parsed p = Parse({"--config", file.c_str(), "--dir", "/flag"}, {{"BALLAST_DIR", "/variable"}, {"BALLAST_LISTEN", "127.0.0.1:2"}});
  ASSERT_TRUE(p.status.ok()) << p.status;
  EXPECT_EQ(p.command.config.dir, "/flag");
  EXPECT_EQ(p.command.config.listen, "127.0.0.1:2");
  EXPECT_EQ(p.command.config.queue_bytes, 1u << 20);
  EXPECT_EQ(p.command.config.metrics_listen, "127.0.0.1:0");
}

TEST(ConfigTest, SecondsMayHaveAFraction) {
  EXPECT_EQ(Parse({"--dir", "d"}).command.config.recovery_target_s, 30);
  EXPECT_EQ(Parse({"--dir", "d", "--recovery-target", "2.5"}).command.config.recovery_target_s, 2.5);
  for (const char* wrong : {"-1", "nan", "inf", "soon"}) {
    EXPECT_EQ(Parse({"--dir", "d", "--recovery-target", wrong}).status.code(), absl::StatusCode::kInvalidArgument) << wrong;
  }
}

TEST(ConfigTest, PrintConfigNamesTheOrigin) {
  const std::string file = TomlFile("servers = 3\n");
  const Parsed p = Parse({"--config", file.c_str(), "--print-config", "--index=2"}, {{"BALLAST_DIR", "/d"}});
  ASSERT_TRUE(p.status.ok()) << p.status;
  EXPECT_EQ(p.command.action, CommandLine::Action::kPrinted);
  EXPECT_NE(p.command.text.find("dir = \"/d\"  # BALLAST_DIR\n"), std::string::npos) << p.command.text;
  EXPECT_NE(p.command.text.find("servers = \"3\"  # file " + file), std::string::npos) << p.command.text;
  EXPECT_NE(p.command.text.find("index = \"2\"  # --index\n"), std::string::npos) << p.command.text;
  EXPECT_NE(p.command.text.find("log-retain = \"needed\"  # default\n"), std::string::npos) << p.command.text;
}

TEST(ConfigTest, MistakesAreNamed) {
  EXPECT_EQ(Parse({}).status.message(), "--dir is required: the data directory of this server");
  EXPECT_EQ(Parse({"--dir", "d", "--index", "1"}).status.message(), "--index 1 needs --servers of at least 2");
  EXPECT_EQ(Parse({"--dir", "d", "--index", "1", "--servers", "2"}).status.message(), "--coordinator is required when --index is above 0");
  EXPECT_EQ(Parse({"--dir", "d", "--log-retain", "some"}).status.message(), "log-retain = \"some\" (--log-retain): expected needed or all");
  EXPECT_EQ(Parse({"--dir", "d"}, {{"BALLAST_INDEX", "x"}}).status.message(), "index = \"x\" (BALLAST_INDEX): expected a whole number");
  EXPECT_EQ(Parse({"--dir", "d", "--queue-bytes", "99999999999G"}).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Parse({"--no-such-flag"}).status.code(), absl::StatusCode::kInvalidArgument);
  const std::string file = TomlFile("no-such-key = 1\n");
  EXPECT_EQ(Parse({"--dir", "d", "--config", file.c_str()}).status.message(), file + ": unknown key \"no-such-key\"");
  EXPECT_EQ(Parse({"--dir", "d", "--config", "/no/such/file"}).status.code(), absl::StatusCode::kInvalidArgument);
}

TEST(ConfigTest, BytesTakeASuffix) {
  EXPECT_EQ(Parse({"--dir", "d", "--queue-bytes", "3G"}).command.config.queue_bytes, uint64_t{3} << 30);
  EXPECT_EQ(Parse({"--dir", "d", "--queue-bytes", "64k"}).command.config.queue_bytes, uint64_t{64} << 10);
  EXPECT_EQ(Parse({"--dir", "d", "--queue-bytes", "17"}).command.config.queue_bytes, 17u);
}

TEST(ConfigTest, ReplayWantsNoDirectoryOfItsOwn) {
  const Parsed p = Parse({"--replay", "/data", "--print-hash", "--json"});
  ASSERT_TRUE(p.status.ok()) << p.status;
  EXPECT_EQ(p.command.action, CommandLine::Action::kReplay);
  EXPECT_EQ(p.command.replay_dir, "/data");
  EXPECT_TRUE(p.command.json);
  EXPECT_FALSE(Parse({"--replay", "/data"}).status.ok());
}

TEST(ConfigTest, HelpAndVersionAreAnswers) {
  EXPECT_EQ(Parse({"--version"}).command.text.rfind("ballast-server ", 0), 0u);
  EXPECT_NE(Parse({"--help"}).command.text.find("--disk-reserve"), std::string::npos);
}

}  // namespace
}  // namespace ballast

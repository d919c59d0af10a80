// The subcommands of ballast-ngram. Each gets its own arguments and prints errors nowhere: main does.
#ifndef BALLAST_TOOLS_NGRAM_COMMANDS_H_
#define BALLAST_TOOLS_NGRAM_COMMANDS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tools/ngram/flags.h"

namespace ballast::ngram {

struct Command {
  const char* name;
  const char* arguments;
  const char* help;
  std::vector<FlagSpec> flags;
  absl::Status (*run)(const Flags& flags);
};

// train_command.cc, shard_commands.cc, model_commands.cc.
Command TrainCommand();
std::vector<Command> ShardCommands();
std::vector<Command> ModelCommands();

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_COMMANDS_H_

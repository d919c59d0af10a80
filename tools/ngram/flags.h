// Flags of the command line: --name value, --name=value, or --name alone for a switch; what is no flag is an argument.
#ifndef BALLAST_TOOLS_NGRAM_FLAGS_H_
#define BALLAST_TOOLS_NGRAM_FLAGS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ballast::ngram {

// One flag that a command knows.
struct FlagSpec {
  const char* name;
  const char* value;  // What to write for it in the help; nullptr for a switch.
  const char* help;
};

class Flags {
 public:
  // Errors: InvalidArgument for an unknown flag (with the nearest known one), a flag without its value, or one that is there twice.
  static absl::StatusOr<Flags> Parse(const std::vector<std::string>& arguments, const std::vector<FlagSpec>& known);

  bool Has(const std::string& name) const { return values_.count(name) > 0; }
  std::string Text(const std::string& name, const std::string& otherwise = "") const;
  // Errors of the readers of numbers: InvalidArgument with flag and value.
  absl::StatusOr<int64_t> Integer(const std::string& name, int64_t otherwise, int64_t least, int64_t most) const;
  absl::StatusOr<double> Number(const std::string& name, double otherwise) const;
  // 512M, 2G, or plain bytes.
  absl::StatusOr<uint64_t> Bytes(const std::string& name, uint64_t otherwise) const;
  // Numbers between commas or spaces.
  absl::StatusOr<std::vector<uint64_t>> Integers(const std::string& name) const;
  absl::StatusOr<std::vector<double>> Numbers(const std::string& name) const;

  const std::vector<std::string>& arguments() const { return arguments_; }

 private:
  std::map<std::string, std::string> values_;
  std::vector<std::string> arguments_;
};

// The name with the fewest edits to `name`; empty when none is near.
std::string Nearest(const std::string& name, const std::vector<std::string>& known);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_FLAGS_H_

// Flags of the tests here that are campaigns as well: --NAME=VALUE of a number or a text, --NAME of a switch. Called by main, once.
#ifndef BALLAST_TESTS_STORAGE_FLAGS_H_
#define BALLAST_TESTS_STORAGE_FLAGS_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"

namespace ballast::testing {

struct Flag {
  absl::string_view name;
  std::variant<uint64_t*, std::string*, bool*> value;
};

// What GoogleTest left of the command line. An unknown flag ends the process with the known ones and status 2.
void ParseFlags(int argc, char** argv, const std::vector<Flag>& flags);

}  // namespace ballast::testing

#endif  // BALLAST_TESTS_STORAGE_FLAGS_H_

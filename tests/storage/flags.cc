#include "tests/storage/flags.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace ballast::testing {
namespace {

bool Take(absl::string_view argument, const Flag& flag) {
  if (!absl::ConsumePrefix(&argument, absl::StrCat("--", flag.name))) return false;
  if (bool* const* on = std::get_if<bool*>(&flag.value)) return **on = argument.empty();
  if (!absl::ConsumePrefix(&argument, "=") || argument.empty()) return false;
  if (uint64_t* const* number = std::get_if<uint64_t*>(&flag.value)) return absl::SimpleAtoi(argument, *number);
  *std::get<std::string*>(flag.value) = std::string(argument);
  return true;
}

}  // namespace

void ParseFlags(int argc, char** argv, const std::vector<Flag>& flags) {
  for (int i = 1; i < argc; ++i) {
    if (std::any_of(flags.begin(), flags.end(), [&](const Flag& flag) { return Take(argv[i], flag); })) continue;
    std::string known;
    for (const Flag& flag : flags) {
      absl::StrAppend(&known, " --", flag.name, std::holds_alternative<bool*>(flag.value) ? "" : "=...");
    }
    std::fprintf(stderr, "unknown flag %s; known:%s\n", argv[i], known.c_str());
    std::exit(2);
  }
}

}  // namespace ballast::testing

// A folder for the files of a fuzz target, gone when the process ends in order. In memory where the system has a place for that: a campaign
// makes millions of files.
#ifndef BALLAST_TESTS_FUZZ_TEMP_FOLDER_H_
#define BALLAST_TESTS_FUZZ_TEMP_FOLDER_H_

#include <cstdlib>
#include <filesystem>
#include <string>

#include "tests/fuzz/input.h"

namespace ballast::fuzz {

// The one of this process.
inline const std::string& TempFolder() {
  static const std::string folder = [] {
    std::error_code error;
    std::string name = std::filesystem::is_directory("/dev/shm", error) ? "/dev/shm/ballast-fuzz-XXXXXX" : "/tmp/ballast-fuzz-XXXXXX";
    FUZZ_CHECK(::mkdtemp(name.data()) != nullptr);
    return name;
  }();
  static const bool removed = std::atexit([] {
                                std::error_code ignored;
                                std::filesystem::remove_all(TempFolder(), ignored);
                              }) == 0;
  FUZZ_CHECK(removed);
  return folder;
}

}  // namespace ballast::fuzz

#endif  // BALLAST_TESTS_FUZZ_TEMP_FOLDER_H_

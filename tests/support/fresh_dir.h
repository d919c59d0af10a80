// Folders for the files of a unit test, which go away with it.
#ifndef BALLAST_TESTS_SUPPORT_FRESH_DIR_H_
#define BALLAST_TESTS_SUPPORT_FRESH_DIR_H_

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace ballast {

// The path of a new, empty folder in `parent`. It is removed, with what is in it, when this process ends in order; not at the end of a
// child that was forked off. For one thread.
inline std::string FreshDir(const std::string& parent = ::testing::TempDir()) {
  struct Folders {
    const pid_t owner = ::getpid();
    std::vector<std::string> paths;
    ~Folders() {
      if (::getpid() != owner) return;
      std::error_code ignored;
      for (const std::string& path : paths) std::filesystem::remove_all(path, ignored);
    }
  };
  static Folders folders;
  std::string path = (std::filesystem::path(parent) / "ballast-test-XXXXXX").string();
  if (::mkdtemp(path.data()) == nullptr) std::abort();
  return folders.paths.emplace_back(path);
}

}  // namespace ballast

#endif  // BALLAST_TESTS_SUPPORT_FRESH_DIR_H_

// Every named scenario, with one rule of core/coordinator/rules.h taken away.
//   scenarios [--mutate NAME] [--gtest_filter=PATTERN]
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>

#include "core/coordinator/rules.h"
#include "tests/sim/harness.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (argc == 3 && std::strcmp(argv[1], "--mutate") == 0) {
    ballast::Rules rules;
    if (!ballast::Mutate(argv[2], rules)) {
      std::fprintf(stderr, "there is no mutation %s\n", argv[2]);
      return 2;
    }
    ballast::sim::Harness::mutation() = argv[2];
  } else if (argc != 1) {
    std::fprintf(stderr, "usage: scenarios [--mutate NAME] [--gtest_filter=PATTERN]\n");
    return 2;
  }
  return RUN_ALL_TESTS();
}

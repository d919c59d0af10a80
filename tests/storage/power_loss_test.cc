// Cuts the power of a shard's disk at random instants, life after life, and compares what recovery finds with what was acknowledged and
// with a run that nothing disturbed. Seeded: --seeds=N runs seeds SEED .. SEED + N - 1 (--seed=SEED); --dir names a folder for the disks.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/storage/faults/fault_disk.h"
#include "tests/storage/flags.h"
#include "tests/storage/shard_life.h"

namespace ballast::testing {
namespace {

namespace fs = std::filesystem;

uint64_t seeds = 24, first_seed = 0;
std::string disk_dir = fs::exists("/dev/shm") ? "/dev/shm" : "/tmp";

constexpr size_t kDecisions = 36;
constexpr int kLivesMax = 5;

struct Totals {
  uint64_t cuts = 0, during_open = 0, complete = 0;
};

const Script& ScriptOf(uint64_t seed) {
  static const Script* const scripts[] = {new Script(Script::Make(TestSpec(OptimizerKind::kAdam, Codec::kInt8), 0, kDecisions)),
                                          new Script(Script::Make(TestSpec(OptimizerKind::kAdam, Codec::kInt8), 1, kDecisions)),
                                          new Script(Script::Make(TestSpec(OptimizerKind::kSgd, Codec::kFp32), 0, kDecisions))};
  return *scripts[seed % 3];
}

// In a process of its own: opens, compares, carries on until the power goes or the script ends.
void Live(const Script& script, const std::string& root, uint64_t cut_after, uint64_t seed, Promises& promises) {
  FaultDisk disk(root);
  if (cut_after != 0) disk.CutPowerAfter(cut_after, seed);
  absl::StatusOr<std::unique_ptr<ShardLife>> life = ShardLife::Open(script, root + "/data");
  ASSERT_TRUE(life.ok()) << life.status();
  const absl::Status checked = (*life)->Check(promises);
  ASSERT_TRUE(checked.ok()) << checked;
  ASSERT_TRUE((*life)->Run(kDecisions, seed % 2 == 0, promises)) << (*life)->Failed();
  life->reset();
  promises.Add(Promises::Kind::kCompleted, 0);
}

// One disk through several lives. Returns what went wrong.
std::string OneSeed(uint64_t seed, Totals& totals) {
  std::mt19937_64 random(seed);
  const Script& script = ScriptOf(seed);  // made here, not in each child
  std::string root = disk_dir + "/ballast_power_XXXXXX";
  if (::mkdtemp(root.data()) == nullptr) return "cannot make " + root;
  const std::string log = root + ".txt";
  Promises promises;
  for (int life = 0; life <= kLivesMax; ++life) {
    const uint64_t cut_after = life == kLivesMax ? 0 : 1 + random() % (random() % 4 == 0 ? 80 : 600), loss = random();
    const uint64_t before = promises.incarnation;
    const int status = RunInChild(log, promises, [&](Promises& p) { Live(script, root, cut_after, loss, p); });
    const bool cut = WIFEXITED(status) && WEXITSTATUS(status) == kPowerIsOff;
    if (!cut && status != 0) return absl::StrCat("life ", life, " ended with wait status ", status, ": see ", log, " and ", root);
    totals.cuts += cut;
    totals.during_open += cut && promises.incarnation == before;
    totals.complete += promises.completed;
  }
  for (const std::string& path : {root, root + ".txt", root + ".trash"}) fs::remove_all(path);
  return promises.completed ? "" : "the last life did not reach the end of the script";
}

TEST(PowerLossTest, NothingAcknowledgedIsLostAndTheWeightsAreTheSame) {
  const auto start = std::chrono::steady_clock::now();
  Totals totals;
  for (uint64_t seed = first_seed; seed < first_seed + seeds; ++seed) {
    ASSERT_EQ(OneSeed(seed, totals), "") << "seed " << seed;
  }
  std::printf("%lu seeds from %lu: %lu power cuts, %lu of them before recovery was done, %.1f s\n", static_cast<unsigned long>(seeds),
              static_cast<unsigned long>(first_seed), static_cast<unsigned long>(totals.cuts),
              static_cast<unsigned long>(totals.during_open),
              std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
}

}  // namespace
}  // namespace ballast::testing

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  using namespace ballast::testing;
  ParseFlags(argc, argv, {{"seeds", &seeds}, {"seed", &first_seed}, {"dir", &disk_dir}});
  return RUN_ALL_TESTS();
}

// Damages one file of a real data directory, one bit or more, starts from it as ballast-server does, and demands: refused, or exactly the
// state that was there. A directory is made here (stopped in order, and as kill -9 leaves it), or given: --dir=DIR of a stopped server 0.
//   --flips=N    random single bits (file class, then file, then bit)          --seed=N
// Beside the flips one file of each class (--every-file: each) is deleted, emptied, filled with zeros and cut at a few random places.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/convert.h"
#include "server/coordinator/run_records.h"
#include "server/shard/shard_testing.h"
#include "server/storage/data_dir.h"
#include "server/storage/files.h"
#include "server/storage/rocks_store.h"
#include "tests/storage/flags.h"
#include "tests/storage/opened_state.h"

namespace ballast::testing {
namespace {

namespace fs = std::filesystem;
using Image = std::map<std::string, std::string>;  // path below the directory -> bytes

uint64_t flips = 40, seed = 0;
bool every_file = false;
std::string given_dir;

constexpr unsigned kSecondsMax = 60;  // of one start
constexpr int kDecisions = 58, kCheckpointEvery = 16;

enum Outcome { kRefused, kIdentical, kOlder, kStopped, kWrong, kOutcomes };
constexpr const char* kOutcomeNames[] = {"refused", "identical", "older checkpoint", "assertion", "WRONG"};

Image Load(const std::string& dir) {
  Image image;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    if (entry.is_regular_file()) image[fs::relative(entry.path(), dir)] = ReadFile(entry.path()).value();
  }
  return image;
}

void Write(const std::string& dir, const Image& image) {
  fs::remove_all(dir);
  for (const auto& [name, bytes] : image) {
    const std::string path = dir + "/" + name;
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
  }
}

std::string FreshDir() {
  std::string dir = absl::StrCat(fs::exists("/dev/shm") ? "/dev/shm" : "/tmp", "/ballast_damage_XXXXXX");
  return ::mkdtemp(dir.data());
}

std::string ClassOf(const std::string& path) {
  const std::string name = fs::path(path).filename();
  if (absl::StartsWith(path, "runs/")) return absl::StartsWith(name, "spare-") ? "spare segment" : name == "SYNCED" ? name : "log segment";
  if (!absl::StartsWith(path, "store/")) return name;
  for (const char* kind : {"MANIFEST", "OPTIONS", "LOG"}) {
    if (absl::StartsWith(name, kind)) return absl::StrCat("RocksDB ", kind);
  }
  if (absl::EndsWith(name, ".sst")) return "SST";
  return absl::EndsWith(name, ".log") ? "RocksDB WAL" : absl::StrCat("RocksDB ", name);
}

// A run of one shard with batches, manifests, an epoch and a log that was cut. `killed`: the directory as it is with the server alive.
Image MakeDir(bool killed) {
  const std::string dir = FreshDir();
  Image image;
  {
    auto data = *DataDir::Open(dir, {"ballast", 0, 1});
    TestShard t(TestSpec(OptimizerKind::kAdam, Codec::kInt8), 0, 1);
    t.store = *OpenRocksStore(data->StoreDir());
    t.options.dir = data->ShardDir("r", 0);
    t.options.segment_bytes = 128u << 10;
    RunRecords records(t.store.get());
    EXPECT_TRUE(t.store->Put("cluster/id", "made-up").ok());
    EXPECT_TRUE(records.PutRun({t.spec, 1, t.layout}).ok());
    EXPECT_TRUE(t.Open().ok());
    EpochRecord epoch;
    epoch.epoch = 1;
    epoch.partitions = 2;
    epoch.batch_rows = 128;
    EXPECT_TRUE(records.PutEpoch("r", epoch).ok());
    std::vector<Manifest> manifests;
    uint64_t chain = 0;
    for (uint64_t i = 1; i <= kDecisions; ++i) {
      const bool init = i == 1, checkpoint = i % kCheckpointEvery == 0;
      std::vector<Uid> uids;
      for (uint64_t part = 0; !checkpoint && part < (init ? 1 : 2); ++part) uids.push_back({1, 2 * i + part});
      for (const Uid& uid : uids) EXPECT_EQ(t.PushSeeded(uid, uid.counter, init).error, "");
      Decision d = t.Make(init ? DecisionKind::kInit : checkpoint ? DecisionKind::kCheckpoint : DecisionKind::kStep, uids);
      TestShard::Reseal(chain, d);
      chain = d.chain;
      EXPECT_TRUE(t.Decide(d));
      if (!checkpoint) continue;
      Manifest m;
      m.run = "r";
      m.version = d.version;
      m.index = d.index;
      m.step = d.step;
      m.chain = d.chain;
      m.shards = {t.events.WaitCheckpointed(d.version)};
      EXPECT_TRUE(records.PutManifest(m).ok());
      manifests.push_back(m);
      ManifestCommitted news{m.version, {m.version}, 1};
      if (manifests.size() > 1) {
        const Manifest& older = manifests[manifests.size() - 2];
        news.kept.push_back(older.version);
        news.log_needed_from = older.index + 1;
      }
      t.shard->OnManifestCommitted(news);
      EXPECT_TRUE(records.DropManifests("r", [&](uint64_t version) { return news.Keeps(version); }).ok());
    }
    if (killed) image = Load(dir);
    t.Close();
    t.store.reset();
  }
  if (!killed) image = Load(dir);
  fs::remove_all(dir);
  return image;
}

// How starting from `dir` ends, compared with what was there. `what` receives the reason.
Outcome Try(const std::string& dir, const OpenedState& good, std::string* what) {
  const absl::StatusOr<OpenedState> state = OpenState(dir);
  if (!state.ok()) {
    *what = state.status().ToString();
    return kRefused;
  }
  if (state->incarnation < good.incarnation) return *what = "an incarnation for the second time", kWrong;
  for (const auto& [name, value] : good.facts) {
    const auto it = state->facts.find(name);
    if (it == state->facts.end() || it->second != value) return *what = absl::StrCat(name, " differs"), kWrong;
  }
  if (state->facts.size() != good.facts.size()) return *what = "more facts than there were", kWrong;
  for (const auto& [name, hash] : state->checkpoints) {
    const auto it = good.checkpoints.find(name);
    if (it == good.checkpoints.end() || it->second != hash) return *what = absl::StrCat("checkpoint ", name, " differs"), kWrong;
  }
  return state->checkpoints.size() == good.checkpoints.size() ? kIdentical : kOlder;
}

class Campaign {
 public:
  ~Campaign() { fs::remove_all(dir_); }

  void Use(Image image) {
    image_ = std::move(image);
    Write(dir_, image_);
    const auto good = OpenState(dir_);
    ASSERT_TRUE(good.ok()) << "the directory itself does not open: " << good.status();
    good_ = *good;
    by_class_.clear();
    for (const auto& [name, bytes] : image_) by_class_[ClassOf(name)].push_back(name);
  }

  void Flip(std::mt19937_64& random) {
    auto one = std::next(by_class_.begin(), static_cast<long>(random() % by_class_.size()));
    const std::string& name = one->second[random() % one->second.size()];
    Image bad = image_;
    std::string& bytes = bad[name];
    if (bytes.empty()) return;
    const size_t at = random() % bytes.size();
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
    Run(bad, name, absl::StrCat("bit flipped at byte ", at));
  }

  void DamageWhole(const std::string& name, std::mt19937_64& random) {
    const std::string& bytes = image_[name];
    Image bad = image_;
    bad.erase(name);
    Run(bad, name, "deleted");
    bad[name] = "";
    Run(bad, name, "emptied");
    bad[name] = std::string(bytes.size(), '\0');
    Run(bad, name, "zeros");
    for (int i = 0; i < 2 && bytes.size() > 1; ++i) {
      const size_t size = random() % bytes.size();
      bad[name] = bytes.substr(0, size);
      Run(bad, name, absl::StrCat("cut to ", size, " of ", bytes.size(), " bytes"));
    }
  }

  std::vector<std::string> Names(std::mt19937_64& random) const {
    std::vector<std::string> names;
    for (const auto& [kind, members] : by_class_) {
      if (every_file) {
        names.insert(names.end(), members.begin(), members.end());
      } else {
        names.push_back(members[random() % members.size()]);
      }
    }
    return names;
  }

  void Print() const {
    std::printf("%-20s %8s", "file", "trials");
    for (const char* name : kOutcomeNames) std::printf(" %17s", name);
    std::printf("\n");
    for (const auto& [name, counts] : counts_) {
      uint64_t trials = 0;
      for (uint64_t n : counts) trials += n;
      std::printf("%-20s %8lu", name.c_str(), static_cast<unsigned long>(trials));
      for (uint64_t n : counts) std::printf(" %17lu", static_cast<unsigned long>(n));
      std::printf("\n");
    }
  }

 private:
  // In a process of its own: RocksDB of some distributions asserts, and one bad start must not be the last.
  void Run(const Image& bad, const std::string& name, const std::string& how) {
    Write(dir_, bad);
    const std::string said = dir_ + ".said";
    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
      (void)!std::freopen("/dev/null", "w", stderr);
      ::alarm(kSecondsMax);
      std::string what;
      const Outcome outcome = Try(dir_, good_, &what);
      std::ofstream(said) << what;
      std::_Exit(outcome);
    }
    int status = 0;
    (void)::waitpid(child, &status, 0);
    const bool by_itself = WIFEXITED(status) && WEXITSTATUS(status) < kOutcomes;  // a sanitizer has exit statuses of its own
    EXPECT_TRUE(by_itself || WIFSIGNALED(status)) << name << ", " << how << ": wait status " << status;
    const Outcome outcome = by_itself ? static_cast<Outcome>(WEXITSTATUS(status)) : kStopped;
    const std::string what = ReadFile(said).value_or("");
    fs::remove(said);
    auto& counts = counts_[ClassOf(name)];
    counts.resize(kOutcomes);
    ++counts[outcome];
    EXPECT_NE(outcome, kWrong) << name << ", " << how << ": " << what;
    EXPECT_FALSE(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) << name << ", " << how << ": hangs";
    if (outcome == kRefused && ClassOf(name) == "log segment") {
      EXPECT_TRUE(absl::StrContains(what, "at byte") || absl::StrContains(what, "missing") || absl::StrContains(what, "lost"))
          << name << ", " << how << ": " << what;
    }
  }

  const std::string dir_ = FreshDir();
  Image image_;
  OpenedState good_;
  std::map<std::string, std::vector<std::string>> by_class_;
  std::map<std::string, std::vector<uint64_t>> counts_;
};

TEST(DamageTest, EveryDamageIsRefusedOrHarmless) {
  const auto start = std::chrono::steady_clock::now();
  std::mt19937_64 random(seed);
  Campaign bits, files;
  std::vector<Image> images;
  if (given_dir.empty()) {
    images = {MakeDir(/*killed=*/false), MakeDir(/*killed=*/true)};
  } else {
    images = {Load(given_dir)};
  }
  for (const Image& image : images) {
    ASSERT_NO_FATAL_FAILURE(bits.Use(image));
    for (uint64_t i = 0; i < flips / images.size(); ++i) bits.Flip(random);
    ASSERT_NO_FATAL_FAILURE(files.Use(image));
    for (const std::string& name : files.Names(random)) files.DamageWhole(name, random);
  }
  std::printf("seed %lu, %lu flipped bits:\n", static_cast<unsigned long>(seed), static_cast<unsigned long>(flips));
  bits.Print();
  std::printf("files deleted, emptied, zeroed or cut:\n");
  files.Print();
  std::printf("%.1f s\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
}

}  // namespace
}  // namespace ballast::testing

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  using namespace ballast::testing;
  ParseFlags(argc, argv, {{"flips", &flips}, {"every-file", &every_file}, {"seed", &seed}, {"dir", &given_dir}});
  return RUN_ALL_TESTS();
}

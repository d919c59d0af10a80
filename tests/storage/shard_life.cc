#include "tests/storage/shard_life.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/storage/rocks_store.h"

namespace ballast::testing {
namespace {

constexpr uint64_t kSegmentBytes = 128u << 10;  // small, so that segments are opened, cut and recycled all the time
constexpr uint64_t kCheckpointEvery = 7;
constexpr char kManifestPrefix[] = "manifest/";

Uid UidOf(uint64_t index, int part) { return {1, index * 2 + static_cast<uint64_t>(part)}; }

std::vector<Uid> UidsOf(const Decision& d) {
  std::vector<Uid> uids;
  for (const Part& part : d.parts) uids.push_back(part.uid);
  return uids;
}

absl::Status Wrong(absl::string_view what) { return absl::InternalError(what); }

}  // namespace

Script Script::Make(const RunSpec& spec, uint32_t shard, size_t decisions) {
  Script script;
  script.spec = spec;
  script.shard = shard;
  TestShard t(spec, shard, 2);
  EXPECT_TRUE(t.Open().ok());
  for (uint64_t index = 1; index <= decisions; ++index) {
    const bool init = index == 1, checkpoint = index % kCheckpointEvery == 0;
    std::vector<Uid> uids;
    if (init) uids = {UidOf(index, 0)};
    if (!init && !checkpoint) uids = {UidOf(index, static_cast<int>(index % 2)), UidOf(index, static_cast<int>(1 - index % 2))};
    for (const Uid& uid : uids) EXPECT_EQ(t.PushSeeded(uid, uid.counter, init).error, "");
    const Decision d = t.Make(init ? DecisionKind::kInit : checkpoint ? DecisionKind::kCheckpoint : DecisionKind::kStep, uids);
    EXPECT_TRUE(t.Decide(d));
    script.decisions.push_back(d);
    script.hash_at[index] = t.Hash();
  }
  return script;
}

void Promises::Add(Kind kind, uint64_t a, uint64_t b) {
  if (kind == Kind::kDecided) index = std::max(index, a);
  if (kind == Kind::kAttempted) attempted = std::max(attempted, a);
  if (kind == Kind::kIncarnation) incarnation = a;
  if (kind == Kind::kReceipt) receipts.insert({a, b});
  if (kind == Kind::kManifest) manifests[a] = b;
  if (kind == Kind::kCompleted) completed = true;
  const uint64_t told[] = {static_cast<uint64_t>(kind), a, b};
  if (pipe < 0) return;
  EXPECT_EQ(::write(pipe, told, sizeof(told)), static_cast<ssize_t>(sizeof(told)));
}

void Promises::ReadAll(int fd) {
  uint64_t told[3];
  while (::read(fd, told, sizeof(told)) == static_cast<ssize_t>(sizeof(told))) Add(static_cast<Kind>(told[0]), told[1], told[2]);
}

int RunInChild(const std::string& log, Promises& promises, const std::function<void(Promises&)>& life) {
  int ends[2];
  EXPECT_EQ(::pipe(ends), 0);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    (void)::close(ends[0]);
    const int output = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    (void)::dup2(output, STDOUT_FILENO);
    (void)::dup2(output, STDERR_FILENO);
    promises.pipe = ends[1];
    life(promises);
    std::fflush(nullptr);
    std::_Exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  (void)::close(ends[1]);
  promises.ReadAll(ends[0]);
  (void)::close(ends[0]);
  int status = 0;
  (void)::waitpid(child, &status, 0);
  return status;
}

absl::StatusOr<std::unique_ptr<ShardLife>> ShardLife::Open(const Script& script, const std::string& dir) {
  std::unique_ptr<ShardLife> life(new ShardLife(script));
  absl::StatusOr<std::unique_ptr<DataDir>> data = DataDir::Open(dir, {"c", script.shard, 2});
  if (!data.ok()) return data.status();
  life->data_ = *std::move(data);
  absl::StatusOr<std::unique_ptr<Store>> store = OpenRocksStore(life->data_->StoreDir());
  if (!store.ok()) return store.status();
  TestShard& t = life->test_;
  t.store = *std::move(store);
  t.options.dir = life->data_->ShardDir(script.spec.name, script.shard);
  t.options.incarnation = life->data_->incarnation() - 1;  // TestShard::Open grows it
  t.options.segment_bytes = kSegmentBytes;
  if (absl::Status s = t.Open(); !s.ok()) return s;
  return life;
}

absl::Status ShardLife::Failed() {
  absl::MutexLock lock(&test_.events.mu);
  return test_.events.failed;
}

absl::Status ShardLife::Check(Promises& promises) {
  const ShardPosition position = test_.shard->Position();
  if (script_.shard == 0 && position.index < promises.index) {
    return Wrong(absl::StrCat("decision ", promises.index, " was acknowledged, recovery ends at ", position.index));
  }
  if (position.index > promises.attempted) return Wrong(absl::StrCat("decision ", position.index, " was never made"));
  const uint64_t expected = position.index == 0 ? test_.Hash() : script_.hash_at.at(position.index);
  if (test_.Hash() != expected) return Wrong(absl::StrCat("other weights than the undisturbed run at decision ", position.index));
  if (data_->incarnation() <= promises.incarnation)
    return Wrong(absl::StrCat("incarnation ", data_->incarnation(), " for the second time"));
  promises.Add(Promises::Kind::kIncarnation, data_->incarnation());

  const std::set<Uid> undecided(position.undecided.begin(), position.undecided.end());
  for (const Decision& d : script_.decisions) {
    for (const Uid& uid : UidsOf(d)) {
      if (d.index > position.index && promises.receipts.contains(uid) && !undecided.contains(uid)) {
        return Wrong(absl::StrCat("contribution ", uid.counter, " had its receipt and is gone"));
      }
    }
  }
  const absl::Status scanned = test_.store->Scan(kManifestPrefix, [&](absl::string_view key, absl::string_view value) {
    uint64_t version = 0, index = 0;
    if (absl::SimpleAtoi(key.substr(sizeof(kManifestPrefix) - 1), &version) && absl::SimpleAtoi(value, &index)) committed_[version] = index;
    return true;
  });
  if (!scanned.ok()) return scanned;
  for (const auto& [version, index] : promises.manifests) {
    if (!committed_.contains(version)) return Wrong(absl::StrCat("the manifest of version ", version, " was acknowledged and is gone"));
    if (position.index < index) return Wrong(absl::StrCat("a manifest of decision ", index, " with a log that ends at ", position.index));
  }
  return absl::OkStatus();
}

// As TestShard::Push, but a shard that fails never answers.
bool ShardLife::Push(Uid uid, bool exact, Promises& promises) {
  struct Answer {
    bool there = false;  // guarded by events.mu
    PushResult result;
  };
  auto answer = std::make_shared<Answer>();
  RecordedEvents& events = test_.events;
  for (PushedChunk& chunk : test_.SeededChunks(uid, uid.counter, exact)) {
    const absl::Status s = test_.shard->Push(std::move(chunk), [answer, &events](const PushResult& r) {
      absl::MutexLock lock(&events.mu);
      answer->result = r;
      answer->there = true;
    });
    EXPECT_TRUE(s.ok()) << s;
  }
  absl::MutexLock lock(&events.mu);
  const auto over = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(events.mu) { return answer->there || !events.failed.ok(); };
  events.mu.Await(absl::Condition(&over));
  if (!answer->there || !answer->result.error.empty()) return false;
  if (script_.shard != 0) promises.Add(Promises::Kind::kReceipt, uid.session, uid.counter);
  return true;
}

// What the coordinator does when every shard has its part: the manifest, then the news of it.
bool ShardLife::CommitManifests(bool wait, Promises& promises) {
  for (auto it = taken_.begin(); it != taken_.end();) {
    const auto [version, index] = *it;
    {
      RecordedEvents& events = test_.events;
      absl::MutexLock lock(&events.mu);
      const auto over = [&, v = version]()
                            ABSL_EXCLUSIVE_LOCKS_REQUIRED(events.mu) { return events.checkpoints.contains(v) || !events.failed.ok(); };
      if (wait) events.mu.Await(absl::Condition(&over));
      if (!events.checkpoints.contains(version)) {
        if (!events.failed.ok()) return false;
        ++it;
        continue;
      }
    }
    it = taken_.erase(it);
    if (!test_.store->Put(absl::StrFormat("%s%020d", kManifestPrefix, version), absl::StrCat(index)).ok()) return false;
    promises.Add(Promises::Kind::kManifest, version, index);
    const auto newest = committed_.insert({version, index}).first;
    ManifestCommitted news{version, {version}, 1};
    if (newest != committed_.begin()) {
      news.kept.push_back(std::prev(newest)->first);
      news.log_needed_from = std::prev(newest)->second + 1;
    }
    test_.shard->OnManifestCommitted(news);
  }
  return true;
}

bool ShardLife::Run(uint64_t last, bool wait, Promises& promises) {
  const uint64_t start = index();
  for (uint64_t next = start + 1; next <= std::min<uint64_t>(last, script_.decisions.size()); ++next) {
    const Decision& d = script_.decisions[next - 1];
    for (const Uid& uid : UidsOf(d)) {
      // A receipt is for good: the shard must not need the bytes again.
      if (!promises.receipts.contains(uid) && !Push(uid, d.kind == DecisionKind::kInit, promises)) return false;
    }
    promises.Add(Promises::Kind::kAttempted, next);
    const bool applied = test_.Decide(d);
    if (script_.shard == 0 && test_.events.Has(&RecordedEvents::durable, next)) promises.Add(Promises::Kind::kDecided, next);
    if (!applied) return false;
    if (Hash() != script_.hash_at.at(next)) {
      ADD_FAILURE() << "other weights than the undisturbed run at decision " << next;
      return false;
    }
    if (d.kind == DecisionKind::kCheckpoint) taken_[d.version] = d.index;
    if (!CommitManifests(wait, promises)) return false;
  }
  return CommitManifests(/*wait=*/true, promises);
}

}  // namespace ballast::testing

#include "server/shard/thread_team.h"

namespace ballast {

ThreadTeam::ThreadTeam(size_t threads) {
  for (size_t i = 1; i < threads; ++i) helpers_.emplace_back([this] { Help(); });
}

ThreadTeam::~ThreadTeam() {
  {
    absl::MutexLock lock(&mu_);
    stop_ = true;
  }
  for (std::thread& helper : helpers_) helper.join();
}

void ThreadTeam::ForEach(size_t count, absl::FunctionRef<void(size_t)> work) {
  absl::MutexLock lock(&mu_);
  work_ = &work;
  count_ = count;
  next_ = 0;
  TakeShare();
  const auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return busy_ == 0; };
  mu_.Await(absl::Condition(&done));
  work_ = nullptr;
}

void ThreadTeam::Help() {
  absl::MutexLock lock(&mu_);
  const auto called = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return stop_ || next_ < count_; };
  for (;;) {
    mu_.Await(absl::Condition(&called));
    if (stop_) return;
    TakeShare();
  }
}

// A block takes about a millisecond: the lock between two of them costs nothing.
void ThreadTeam::TakeShare() {
  while (next_ < count_) {
    const size_t index = next_++;
    const Work* work = work_;
    ++busy_;
    mu_.Unlock();
    (*work)(index);
    mu_.Lock();
    --busy_;
  }
}

}  // namespace ballast

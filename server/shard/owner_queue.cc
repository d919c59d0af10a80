#include "server/shard/owner_queue.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "server/metrics.h"

namespace ballast {
namespace {

// The owner pays one owed block after so many tasks even when it is never idle.
constexpr int kTasksPerPaidBlock = 8;

}  // namespace

OwnerQueue::~OwnerQueue() {
  if (metrics_ != nullptr) metrics_->AddQueueBytes(-static_cast<int64_t>(push_bytes_));
}

void OwnerQueue::Post(Task task) {
  absl::MutexLock lock(&mu_);
  tasks_.push_back(std::move(task));
}

absl::Status OwnerQueue::Push(uint64_t bytes, absl::FunctionRef<Task()> make) {
  absl::MutexLock lock(&mu_);
  if (push_bytes_ > 0 && push_bytes_ + bytes > push_bytes_max_) {
    return absl::ResourceExhaustedError(absl::StrCat(push_bytes_, " bytes of chunks wait for the shard already"));
  }
  push_bytes_ += bytes;
  if (metrics_ != nullptr) metrics_->AddQueueBytes(static_cast<int64_t>(bytes));
  pushes_.push_back([this, bytes, task = make()] {
    task();
    absl::MutexLock done(&mu_);
    push_bytes_ -= bytes;
    if (metrics_ != nullptr) metrics_->AddQueueBytes(-static_cast<int64_t>(bytes));
  });
  return absl::OkStatus();
}

void OwnerQueue::RunAndWait(absl::FunctionRef<void()> what) {
  absl::Notification done;
  {
    absl::MutexLock lock(&mu_);
    pushes_.push_back([&] {
      what();
      done.Notify();
    });
  }
  done.WaitForNotification();
}

void OwnerQueue::TellRoom() {
  absl::MutexLock lock(&mu_);
  room_ = true;
}

void OwnerQueue::Run(absl::FunctionRef<bool(bool must)> pay) {
  for (int tasks = 0;; ++tasks) {
    Task task;
    {
      absl::MutexLock lock(&mu_);
      const auto work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return stop_ || !tasks_.empty() || !pushes_.empty() || room_; };
      mu_.Await(absl::Condition(&work));
      if (stop_) return;
      room_ = false;  // before `pay`: room that comes while it runs must not be forgotten
      std::deque<Task>& next = tasks_.empty() ? pushes_ : tasks_;
      if (!next.empty()) {
        task = std::move(next.front());
        next.pop_front();
      }
    }
    if (task) task();
    if (pay(!task || tasks % kTasksPerPaidBlock == 0)) TellRoom();
  }
}

void OwnerQueue::Stop() {
  absl::MutexLock lock(&mu_);
  stop_ = true;
}

std::deque<OwnerQueue::Task> OwnerQueue::TakeRest() {
  absl::MutexLock lock(&mu_);
  return std::exchange(pushes_, {});
}

}  // namespace ballast

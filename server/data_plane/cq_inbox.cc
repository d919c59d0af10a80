#include "server/data_plane/cq_inbox.h"

#include <utility>

namespace ballast {

void CqInbox::Post(std::function<void()> closure) {
  absl::MutexLock lock(&mu_);
  if (closed_) return;
  posted_.push_back(std::move(closure));
  if (alarm_set_ || std::this_thread::get_id() == polling_) return;
  alarm_set_ = true;
  alarm_.Set(cq_, gpr_time_0(GPR_CLOCK_REALTIME), this);
}

void CqInbox::Run() {
  while (true) {
    std::vector<std::function<void()>> posted;
    {
      absl::MutexLock lock(&mu_);
      posted.swap(posted_);
    }
    if (posted.empty()) return;
    for (const auto& closure : posted) closure();
  }
}

void CqInbox::Done(bool) {
  absl::MutexLock lock(&mu_);
  alarm_set_ = false;
}

void CqInbox::Close() {
  std::vector<std::function<void()>> dropped;  // destroyed outside of the lock
  absl::MutexLock lock(&mu_);
  closed_ = true;
  dropped.swap(posted_);
}

}  // namespace ballast

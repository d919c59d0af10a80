#include "server/mailbox.h"

#include <pthread.h>

#include <utility>

namespace ballast {

Mailbox::Mailbox(const std::string& name, absl::Duration period, std::function<void()> tick)
    : period_(period), tick_(std::move(tick)), thread_([this] { Loop(); }) {
  pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
}

Mailbox::~Mailbox() { Stop(); }

void Mailbox::Post(std::function<void()> closure) {
  absl::MutexLock lock(&mu_);
  if (stopping_) return;
  closures_.push_back(std::move(closure));
  posted_.Set();
}

void Mailbox::Stop() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    posted_.Set();
  }
  if (thread_.joinable()) thread_.join();
}

size_t Mailbox::size() const {
  absl::MutexLock lock(&mu_);
  return closures_.size();
}

void Mailbox::Loop() {
  absl::Time next_tick = SteadyNow() + period_;
  while (true) {
    std::function<void()> closure;
    {
      absl::MutexLock lock(&mu_);
      if (!closures_.empty()) {
        closure = std::move(closures_.front());
        closures_.pop_front();
      } else if (stopping_) {
        return;
      } else {
        posted_.Clear();
      }
    }
    if (closure) {
      closure();
    } else {
      posted_.WaitFor(next_tick - SteadyNow());
    }
    if (tick_ && SteadyNow() >= next_tick) {
      tick_();
      next_tick = SteadyNow() + period_;
    }
  }
}

}  // namespace ballast

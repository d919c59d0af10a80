// Closures from any thread, run on the thread that polls a completion queue.
//
// Threads: Post from any; the rest from the polling thread. After Close nothing runs and Post drops what it gets.
#ifndef BALLAST_SERVER_DATA_PLANE_CQ_INBOX_H_
#define BALLAST_SERVER_DATA_PLANE_CQ_INBOX_H_

#include <grpcpp/alarm.h>
#include <grpcpp/completion_queue.h>

#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace ballast {

// What a completion queue returns: the object knows what was completed.
class CqEvent {
 public:
  virtual ~CqEvent() = default;
  virtual void Done(bool ok) = 0;
};

// A CqEvent that calls a member function; lives in the object that started the operation.
template <typename T>
class MemberEvent final : public CqEvent {
 public:
  MemberEvent(T* object, void (T::*method)(bool)) : object_(object), method_(method) {}
  void Done(bool ok) override { (object_->*method_)(ok); }

 private:
  T* const object_;
  void (T::*const method_)(bool);
};

class CqInbox final : public CqEvent {
 public:
  explicit CqInbox(grpc::CompletionQueue* cq) : cq_(cq) {}

  void Post(std::function<void()> closure) ABSL_LOCKS_EXCLUDED(mu_);
  // The polling thread says who it is, so that what it posts itself needs no alarm: it runs what was posted after every event.
  void SetPollingThread(std::thread::id id) { polling_ = id; }
  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  void Done(bool ok) override ABSL_LOCKS_EXCLUDED(mu_);  // the alarm
  void Close() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  grpc::CompletionQueue* const cq_;
  std::thread::id polling_;  // set before the first Post
  absl::Mutex mu_;
  grpc::Alarm alarm_ ABSL_GUARDED_BY(mu_);
  bool alarm_set_ ABSL_GUARDED_BY(mu_) = false;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::function<void()>> posted_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ballast

#endif  // BALLAST_SERVER_DATA_PLANE_CQ_INBOX_H_

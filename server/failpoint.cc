#include "server/failpoint.h"

#ifdef BALLAST_MUTATIONS

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"

namespace ballast {
namespace {

using Action = FailpointPlan::Action;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kFileCheck{5};
constexpr std::chrono::milliseconds kPauseCheck{2};
constexpr int kUsageStatus = 2;

[[noreturn]] void Refuse(absl::string_view why) {
  std::fprintf(stderr, "failpoints: %s\n", std::string(why).c_str());
  std::_Exit(kUsageStatus);
}

const char* Variable(const char* name) {
  const char* const text = std::getenv(name);
  return text == nullptr ? "" : text;
}

// Takes "@nth", "*count" and "%percent" off the end of `text`, in any order.
absl::Status TakeModifiers(absl::string_view* text, FailpointPlan* plan) {
  while (true) {
    const size_t at = text->find_last_not_of("0123456789");
    if (at == absl::string_view::npos || at + 1 == text->size()) return absl::OkStatus();
    uint64_t* const field = (*text)[at] == '@'   ? &plan->nth
                            : (*text)[at] == '*' ? &plan->count
                            : (*text)[at] == '%' ? &plan->percent
                                                 : nullptr;
    if (field == nullptr) return absl::OkStatus();
    if (!absl::SimpleAtoi(text->substr(at + 1), field) || *field == 0)
      return absl::InvalidArgumentError(absl::StrCat("bad number in ", *text));
    text->remove_suffix(text->size() - at);
  }
}

absl::StatusOr<FailpointPlan> ParsePlan(absl::string_view text) {
  static const std::map<std::string, Action, std::less<>> kActions = {
      {"kill", Action::kKill}, {"exit", Action::kExit}, {"error", Action::kError}, {"pause", Action::kPause}, {"delay", Action::kDelay}};
  FailpointPlan plan;
  const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
  plan.point = FailpointIndex({parts.first.data(), parts.first.size()});
  if (plan.point == kFailpoints) return absl::InvalidArgumentError(absl::StrCat("there is no point \"", parts.first, "\""));
  absl::string_view what = parts.second;
  if (absl::Status s = TakeModifiers(&what, &plan); !s.ok()) return s;
  const std::pair<std::string, std::string> act = absl::StrSplit(what, absl::MaxSplits(':', 1));
  const auto action = kActions.find(act.first);
  if (action == kActions.end()) return absl::InvalidArgumentError(absl::StrCat("there is no action \"", act.first, "\""));
  plan.action = action->second;
  plan.argument = act.second;
  int number = 0;
  const bool numeric = plan.action == Action::kDelay || (plan.action == Action::kExit && !plan.argument.empty());
  if (numeric && !absl::SimpleAtoi(plan.argument, &number)) return absl::InvalidArgumentError(absl::StrCat("no number: ", text));
  if (plan.action == Action::kPause && plan.argument.empty()) return absl::InvalidArgumentError(absl::StrCat("no file: ", text));
  return plan;
}

class Failpoints {
 public:
  Failpoints() : file_(Variable("BALLAST_FAILPOINTS_FILE")) {
    if (!absl::SimpleAtoi(Variable("BALLAST_FAILPOINTS_SEED"), &coin_)) coin_ = 1;
    MapCoverage(Variable("BALLAST_FAILPOINTS_COVERAGE"));
    absl::MutexLock lock(&mu_);
    Replace(Variable("BALLAST_FAILPOINTS"));
  }

  absl::Status Pass(size_t point) {
    Count(&CoverageLine::passes, point);
    std::optional<FailpointPlan> plan;
    {
      absl::MutexLock lock(&mu_);
      ReadFile();
      plan = Choose(point);
    }
    return plan ? Act(*plan) : absl::OkStatus();
  }

 private:
  struct Armed {
    FailpointPlan plan;
    uint64_t passes = 0;
    uint64_t fired = 0;
  };

  void MapCoverage(const std::string& path) {
    if (path.empty()) return;
    constexpr size_t kBytes = kFailpoints * sizeof(CoverageLine);
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ::ftruncate(fd, kBytes) != 0) Refuse(absl::StrCat("cannot write ", path));
    void* const mapped = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) Refuse(absl::StrCat("cannot map ", path));
    ::close(fd);
    coverage_ = static_cast<CoverageLine*>(mapped);
    for (size_t i = 0; i < kFailpoints; ++i) kFailpointLines[i].name.copy(coverage_[i].name, sizeof(coverage_[i].name) - 1);
  }

  void Count(uint64_t CoverageLine::*field, size_t point) {
    if (coverage_ != nullptr) __atomic_fetch_add(&(coverage_[point].*field), 1, __ATOMIC_RELAXED);
  }

  void Replace(const std::string& text) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    absl::StatusOr<std::vector<FailpointPlan>> plans = ParseFailpointPlans(text);
    if (!plans.ok()) Refuse(plans.status().message());
    armed_.clear();
    for (FailpointPlan& plan : *plans) armed_[plan.point].plan = std::move(plan);
  }

  void ReadFile() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (file_.empty() || Clock::now() - checked_ < kFileCheck) return;
    checked_ = Clock::now();
    struct stat st;
    if (::stat(file_.c_str(), &st) != 0) return;
    const int64_t changed = st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec;
    if (changed == changed_) return;
    changed_ = changed;
    std::ifstream in(file_);
    Replace({std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()});
  }

  std::optional<FailpointPlan> Choose(size_t point) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const auto it = armed_.find(point);
    if (it == armed_.end()) return std::nullopt;
    Armed& armed = it->second;
    if (++armed.passes < armed.plan.nth || armed.fired >= armed.plan.count || Toss() >= armed.plan.percent) return std::nullopt;
    ++armed.fired;
    return armed.plan;
  }

  uint64_t Toss() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {  // SplitMix64
    uint64_t z = coin_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (z ^ (z >> 31)) % 100;
  }

  absl::Status Act(const FailpointPlan& plan) {
    const std::string name(kFailpointLines[plan.point].name);
    Count(&CoverageLine::fired, plan.point);
    std::fprintf(stderr, "failpoint %s\n", name.c_str());
    switch (plan.action) {
      case Action::kKill:
        ::raise(SIGKILL);
        break;
      case Action::kExit:
        std::_Exit(plan.argument.empty() ? EXIT_FAILURE : std::atoi(plan.argument.c_str()));
      case Action::kError:
        return absl::InternalError(absl::StrCat("failpoint ", name, plan.argument.empty() ? "" : ": ", plan.argument));
      case Action::kPause:
        while (::access(plan.argument.c_str(), F_OK) == 0) std::this_thread::sleep_for(kPauseCheck);
        break;
      case Action::kDelay:
        std::this_thread::sleep_for(std::chrono::milliseconds(std::atoi(plan.argument.c_str())));
        break;
    }
    return absl::OkStatus();
  }

  const std::string file_;
  CoverageLine* coverage_ = nullptr;  // null: nothing is counted

  absl::Mutex mu_;
  std::map<size_t, Armed> armed_ ABSL_GUARDED_BY(mu_);  // by point
  Clock::time_point checked_ ABSL_GUARDED_BY(mu_);
  int64_t changed_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t coin_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace

absl::StatusOr<std::vector<FailpointPlan>> ParseFailpointPlans(absl::string_view text) {
  std::vector<FailpointPlan> plans;
  for (absl::string_view one : absl::StrSplit(text, absl::ByAnyChar(";\n"), absl::SkipWhitespace())) {
    absl::StatusOr<FailpointPlan> plan = ParsePlan(absl::StripAsciiWhitespace(one));
    if (!plan.ok()) return plan.status();
    plans.push_back(*std::move(plan));
  }
  return plans;
}

absl::Status PassFailpoint(size_t point) {
  static Failpoints* const failpoints = new Failpoints();  // passed until the process is gone
  return failpoints->Pass(point);
}

void PassPlainFailpoint(size_t point) {
  if (!PassFailpoint(point).ok()) Refuse(absl::StrCat("no error can be returned at ", std::string(kFailpointLines[point].name)));
}

}  // namespace ballast

#endif

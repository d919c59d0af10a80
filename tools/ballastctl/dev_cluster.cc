#include "tools/ballastctl/dev_cluster.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace ballast::ctl {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr auto kStartTimeout = std::chrono::seconds(60);
constexpr auto kStopTimeout = std::chrono::seconds(30);
constexpr auto kPoll = std::chrono::milliseconds(20);

fs::path StateFile(const std::string& dir) { return fs::path(dir) / "dev.json"; }

std::string ReadFile(const fs::path& path) {
  std::ifstream in(path);
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

// A pid can be taken over by another program after a reboot: the command line must be ours (ballastctl's own between fork and exec).
bool Alive(int pid) {
  if (pid <= 0) return false;
  waitpid(pid, nullptr, WNOHANG);  // our own child that ended is a zombie until it is asked about
  return kill(pid, 0) == 0 && absl::StrContains(ReadFile(absl::StrCat("/proc/", pid, "/cmdline")), "ballast");
}

absl::Status SaveState(const DevCluster& cluster) {
  Json processes = Json::array();
  for (const DevProcess& p : cluster.processes) {
    processes.push_back({{"name", p.name}, {"pid", p.pid}, {"address", p.address}, {"metrics_address", p.metrics_address}, {"log", p.log}});
  }
  const fs::path path = StateFile(cluster.dir), part = path.string() + ".part";
  std::ofstream(part) << Json{{"processes", processes}}.dump(2) << "\n";
  std::error_code error;
  fs::rename(part, path, error);
  return error ? absl::PermissionDeniedError(absl::StrCat(path.string(), ": ", error.message())) : absl::OkStatus();
}

absl::StatusOr<DevCluster> LoadState(const std::string& dir) {
  const fs::path path = StateFile(dir);
  if (!fs::exists(path)) return absl::NotFoundError(absl::StrCat("no dev cluster in ", dir, "; start one with `ballastctl dev up`"));
  const Json state = Json::parse(ReadFile(path), nullptr, /*allow_exceptions=*/false);
  if (!state.is_object() || !state.contains("processes") || !state["processes"].is_array()) {
    return absl::DataLossError(absl::StrCat(path.string(), " cannot be read as JSON; end the processes by hand and remove it"));
  }
  DevCluster cluster{dir, {}};
  for (const Json& p : state["processes"]) {
    DevProcess process{
        p.value("name", ""), p.value("pid", 0), p.value("address", ""), p.value("metrics_address", ""), p.value("log", ""), false};
    process.alive = Alive(process.pid);
    cluster.processes.push_back(std::move(process));
  }
  return cluster;
}

// The binaries lie beside ballastctl in an installation, or in their own folders of a build tree.
absl::StatusOr<std::string> FindBinary(const std::string& name, const std::string& folder) {
  std::vector<fs::path> places;
  if (const char* bin = std::getenv("BALLAST_BIN")) places.push_back(fs::path(bin) / name);
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error).parent_path();
  places.push_back(self / name);
  places.push_back(self / ".." / ".." / folder / name);
  for (const fs::path& place : places) {
    if (access(place.c_str(), X_OK) == 0) return fs::weakly_canonical(place).string();
  }
  return absl::NotFoundError(absl::StrCat("cannot find ", name, " beside ballastctl; set BALLAST_BIN to the folder that holds it"));
}

// Starts `command` in a session of its own, so that Ctrl-C in the terminal does not reach it.
absl::StatusOr<int> Spawn(const std::vector<std::string>& command, const std::string& log) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = fork();
  if (pid < 0) return absl::InternalError(absl::StrCat("fork: ", std::strerror(errno)));
  if (pid > 0) return pid;
  setsid();
  const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  const int in = open("/dev/null", O_RDONLY);
  if (out < 0 || in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0) _exit(126);
  execv(argv[0], argv.data());
  _exit(127);
}

std::string LogTail(const std::string& log) {
  const std::string text = ReadFile(log);
  return text.size() > 1500 ? text.substr(text.size() - 1500) : text;
}

// Waits for the ready file that our child writes when it serves, and takes its addresses from there. Not by Alive: until exec has happened
// the child has the command line of ballastctl, or none.
absl::Status AwaitReady(const fs::path& ready, DevProcess& process) {
  const auto deadline = Clock::now() + kStartTimeout;
  bool ended = false;
  while (!ended && Clock::now() < deadline) {
    const Json state = Json::parse(ReadFile(ready), nullptr, false);
    if (state.is_object() && state.value("pid", 0) == process.pid) {
      process.address = state.value("address", "");
      process.metrics_address = state.value("metrics_address", "");
      process.alive = true;
      return absl::OkStatus();
    }
    ended = waitpid(process.pid, nullptr, WNOHANG) == process.pid;
    std::this_thread::sleep_for(kPoll);
  }
  const char* what = ended ? " ended while starting" : " does not serve after 60 s";
  return absl::UnavailableError(absl::StrCat(process.name, what, "; the end of ", process.log, ":\n", LogTail(process.log)));
}

// A free port below those that Linux gives to outgoing connections: one of these could take the place of a process that is away, even one
// that is made to reach it.
std::string FreeAddress() {
  std::random_device random;
  while (true) {
    const int port = std::uniform_int_distribution<int>(10000, 32767)(random);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    const int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool taken = bind(probe, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 && errno == EADDRINUSE;
    close(probe);
    if (!taken) return absl::StrCat("127.0.0.1:", port);
  }
}

absl::Status Start(const DevOptions& options, const std::string& binary, std::vector<std::string> flags, DevProcess& process) {
  const fs::path dir = options.dir;
  const fs::path ready = dir / (process.name + ".ready");
  std::error_code error;
  fs::remove(ready, error);
  process.log = (dir / "logs" / (process.name + ".log")).string();
  std::vector<std::string> command = {binary,
                                      "--listen",
                                      process.address.empty() ? FreeAddress() : process.address,
                                      "--metrics-listen",
                                      process.metrics_address.empty() ? FreeAddress() : process.metrics_address,
                                      "--ready-file",
                                      ready.string()};
  command.insert(command.end(), flags.begin(), flags.end());
  auto pid = Spawn(command, process.log);
  if (!pid.ok()) return pid.status();
  process.pid = *pid;
  return absl::OkStatus();
}

}  // namespace

std::string DefaultDevDir() {
  if (const char* dir = std::getenv("BALLAST_DEV_DIR")) return dir;
  if (const char* state = std::getenv("XDG_STATE_HOME")) return absl::StrCat(state, "/ballast/dev");
  const char* home = std::getenv("HOME");
  return absl::StrCat(home ? home : "", "/.local/state/ballast/dev");
}

absl::StatusOr<DevCluster> DevUp(const DevOptions& given) {
  DevOptions options = given;
  if (options.dir.empty()) options.dir = DefaultDevDir();
  options.dir = fs::absolute(options.dir).lexically_normal().string();
  auto server_binary = FindBinary("ballast-server", "server");
  if (!server_binary.ok()) return server_binary.status();
  auto worker_binary = FindBinary("ballast-worker", "worker");
  if (!worker_binary.ok()) return worker_binary.status();
  std::error_code error;
  fs::create_directories(fs::path(options.dir) / "logs", error);
  if (error) return absl::PermissionDeniedError(absl::StrCat(options.dir, ": ", error.message()));

  DevCluster cluster{options.dir, {}};
  for (int i = 0; i < options.servers; ++i) cluster.processes.push_back({absl::StrCat("server-", i), 0, "", "", "", false});
  for (int i = 0; i < options.workers; ++i) cluster.processes.push_back({absl::StrCat("worker-", i), 0, "", "", "", false});
  if (auto before = LoadState(options.dir); before.ok()) {
    auto names = [](const DevCluster& c) {
      return absl::StrJoin(c.processes, ",", [](std::string* out, const DevProcess& p) { absl::StrAppend(out, p.name); });
    };
    if (names(*before) != names(cluster)) {
      return absl::FailedPreconditionError(absl::StrCat("a dev cluster of another size lives in ", options.dir, " (", names(*before),
                                                        "); `ballastctl dev down --rm` removes it, --dir chooses another folder"));
    }
    cluster = *before;
    cluster.dir = options.dir;
  } else if (!absl::IsNotFound(before.status())) {
    return before.status();
  }

  for (size_t i = 0; i < cluster.processes.size(); ++i) {
    DevProcess& process = cluster.processes[i];
    if (process.alive) continue;
    const bool is_server = i < static_cast<size_t>(options.servers);
    const DevProcess& server0 = cluster.processes[0];
    std::vector<std::string> flags = is_server ? options.server_flags : options.worker_flags;
    const std::string data = (fs::path(options.dir) / process.name).string();
    flags.insert(flags.end(), {"--dir", data});
    if (is_server) {
      flags.insert(flags.end(), {"--index", std::to_string(i), "--servers", std::to_string(options.servers)});
      if (i > 0) flags.insert(flags.end(), {"--coordinator", server0.address});
    } else {
      flags.insert(flags.end(), {"--server", server0.address, "--name", process.name});
    }
    absl::Status started = Start(options, is_server ? *server_binary : *worker_binary, std::move(flags), process);
    if (started.ok()) started = AwaitReady(fs::path(options.dir) / (process.name + ".ready"), process);
    if (absl::Status saved = SaveState(cluster); !saved.ok()) return saved;
    if (!started.ok()) return started;
  }
  return cluster;
}

absl::Status DevDown(const std::string& given, bool remove) {
  const std::string dir = given.empty() ? DefaultDevDir() : given;
  auto cluster = LoadState(dir);
  if (!cluster.ok()) return cluster.status();
  auto stop_all = [&](size_t first, size_t last) {
    for (size_t i = first; i < last; ++i) {
      if (cluster->processes[i].alive) kill(cluster->processes[i].pid, SIGTERM);
    }
    const auto deadline = Clock::now() + kStopTimeout;
    for (size_t i = first; i < last; ++i) {
      while (Alive(cluster->processes[i].pid) && Clock::now() < deadline) std::this_thread::sleep_for(kPoll);
      if (Alive(cluster->processes[i].pid)) kill(cluster->processes[i].pid, SIGKILL);
      cluster->processes[i].pid = 0;
    }
  };
  size_t servers = 0;
  while (servers < cluster->processes.size() && absl::StartsWith(cluster->processes[servers].name, "server-")) ++servers;
  stop_all(servers, cluster->processes.size());  // workers first: they hand their grants back
  stop_all(0, 1);                                // then server 0, whose last checkpoint needs the others
  stop_all(1, servers);
  std::error_code error;
  if (remove) {
    for (const DevProcess& p : cluster->processes) fs::remove_all(fs::path(dir) / p.name, error);
    for (const DevProcess& p : cluster->processes) fs::remove(fs::path(dir) / (p.name + ".ready"), error);
    fs::remove_all(fs::path(dir) / "logs", error);
    fs::remove(StateFile(dir), error);
    return absl::OkStatus();
  }
  return SaveState(*cluster);
}

absl::StatusOr<DevCluster> DevStatus(const std::string& dir) { return LoadState(dir.empty() ? DefaultDevDir() : dir); }

std::string DevServerAddress() {
  auto cluster = LoadState(DefaultDevDir());
  return cluster.ok() && !cluster->processes.empty() ? cluster->processes[0].address : "";
}

}  // namespace ballast::ctl

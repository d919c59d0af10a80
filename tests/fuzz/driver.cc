// The main of a fuzz target where there is no libFuzzer: runs every file of a corpus, then mutations of them for some seconds.
//   TARGET_test [--seconds=5] [--seed=N] [FILE|FOLDER]...
// It follows no coverage: what it finds are old bugs that came back and new ones near the corpus. tools/fuzz looks for the others.
// An input that ends the process is left in $TEST_UNDECLARED_OUTPUTS_DIR (or the current folder) as crash-input.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "tests/fuzz/input.h"

namespace {

constexpr size_t kInputBytesMax = 64u << 10;

std::string crash_path;
const std::string* running = nullptr;

// Only calls that are allowed in a signal handler.
void OnCrash(int signal) {
  const int fd = ::open(crash_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (fd >= 0 && running != nullptr && ::write(fd, running->data(), running->size()) >= 0) ::close(fd);
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void Run(const std::string& input) {
  // A copy of exactly this size: a sanitizer sees a read beyond it.
  const std::vector<uint8_t> bytes(input.begin(), input.end());
  running = &input;
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

std::vector<std::string> Load(const std::string& path) {
  namespace fs = std::filesystem;
  std::vector<std::string> inputs;
  std::vector<fs::path> files;
  if (fs::is_directory(path)) {
    for (const auto& entry : fs::recursive_directory_iterator(path)) {
      if (fs::is_regular_file(entry.path())) files.push_back(entry.path());
    }
  } else {
    files.emplace_back(path);
  }
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    std::ifstream in(file, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return inputs;
}

class Mutator {
 public:
  Mutator(uint64_t seed, const std::vector<std::string>* corpus) : random_(seed), corpus_(corpus) {}

  std::string Next() {
    std::string input = corpus_->empty() ? std::string() : (*corpus_)[Below(corpus_->size())];
    for (uint64_t changes = 1 + Below(8); changes > 0; --changes) Change(input);
    if (input.size() > kInputBytesMax) input.resize(kInputBytesMax);
    return input;
  }

 private:
  uint64_t Below(uint64_t bound) { return random_() % bound; }
  size_t Place(const std::string& input) { return Below(input.size() + 1); }

  void Change(std::string& input) {
    const size_t at = Place(input);
    const size_t n = std::min<size_t>(1 + Below(16), input.size() - at);
    switch (Below(8)) {
      case 0:
      case 1:
        if (n > 0) input[at] = static_cast<char>(input[at] ^ (1 << Below(8)));
        break;
      case 2:
        if (n > 0) input[at] = static_cast<char>(random_());
        break;
      case 3:
        input.insert(at, 1 + Below(8), static_cast<char>(random_()));
        break;
      case 4:
        input.erase(at, n);
        break;
      case 5:
        input.insert(at, input.substr(Place(input), n));
        break;
      case 6: {  // an extreme number
        static constexpr uint64_t kValues[] = {0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0xffffffff, uint64_t{1} << 63, ~uint64_t{0}};
        const uint64_t value = kValues[Below(std::size(kValues))];
        for (size_t i = 0; i < std::min<size_t>(uint64_t{1} << Below(4), input.size() - at); ++i)
          input[at + i] = static_cast<char>(value >> (8 * i));
        break;
      }
      default: {  // the rest of another input
        if (corpus_->empty()) break;
        const std::string& other = (*corpus_)[Below(corpus_->size())];
        input.resize(at);
        input += other.substr(Place(other));
      }
    }
  }

  std::mt19937_64 random_;
  const std::vector<std::string>* corpus_;
};

}  // namespace

int main(int argc, char** argv) {
  uint64_t seconds = 5, seed = std::random_device()();
  std::vector<std::string> corpus = {""};
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (absl::ConsumePrefix(&argument, "--seconds=")) {
      FUZZ_CHECK(absl::SimpleAtoi(argument, &seconds));
    } else if (absl::ConsumePrefix(&argument, "--seed=")) {
      FUZZ_CHECK(absl::SimpleAtoi(argument, &seed));
    } else {
      for (std::string& input : Load(argv[i])) corpus.push_back(std::move(input));
    }
  }
  const char* outputs = std::getenv("TEST_UNDECLARED_OUTPUTS_DIR");
  crash_path = std::string(outputs == nullptr ? "." : outputs) + "/crash-input";
  for (int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(signal, OnCrash);

  std::printf("seed %llu, %zu kept inputs\n", static_cast<unsigned long long>(seed), corpus.size() - 1);
  std::fflush(stdout);
  for (const std::string& input : corpus) Run(input);
  Mutator mutator(seed, &corpus);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  uint64_t runs = 0;
  for (; (runs & 63) != 0 || std::chrono::steady_clock::now() < end; ++runs) Run(mutator.Next());
  std::printf("%llu mutations\n", static_cast<unsigned long long>(runs));
}

// What the fuzz targets share: a promise that is broken ends the process with its text, and bytes of the fuzzer become numbers and texts,
// hostile ones often. One thread; an exhausted Input gives zeros, so that every prefix of an input is an input.
#ifndef BALLAST_TESTS_FUZZ_INPUT_H_
#define BALLAST_TESTS_FUZZ_INPUT_H_

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#define FUZZ_CHECK(condition)                                                              \
  do {                                                                                     \
    if (!(condition)) {                                                                    \
      std::fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                        \
    }                                                                                      \
  } while (false)

namespace ballast::fuzz {

// A refusal says something, in a few lines of text: nobody's giant input comes back in an error.
inline void CheckRefusal(const absl::Status& status) {
  FUZZ_CHECK(!status.ok());
  FUZZ_CHECK(!status.message().empty());
  FUZZ_CHECK(status.message().size() <= 16u << 10);
}

class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}

  bool empty() const { return rest_.empty(); }
  absl::string_view rest() const { return rest_; }

  template <typename T>
  T Raw() {
    T value{};
    const size_t n = std::min(sizeof(T), rest_.size());
    if (n > 0) std::memcpy(&value, rest_.data(), n);  // at the end there may be no address either
    rest_.remove_prefix(n);
    return value;
  }
  uint8_t Byte() { return Raw<uint8_t>(); }
  bool Bool() { return (Byte() & 1) != 0; }
  uint64_t Below(uint64_t bound) { return bound == 0 ? 0 : (bound <= 256 ? Byte() : Raw<uint32_t>()) % bound; }

  // A small number, an extreme one, or any.
  uint64_t U64() {
    static constexpr uint64_t kExtremes[] = {uint64_t{1} << 18, uint64_t{1} << 20, 0x7fffffff,        0x80000000,
                                             0xffffffff,        uint64_t{1} << 40, uint64_t{1} << 62, 0x7fffffffffffffff,
                                             uint64_t{1} << 63, ~uint64_t{0} - 1,  ~uint64_t{0}};
    const uint8_t kind = Byte();
    if (kind < 192) return kind & 31;
    if (kind < 240) return kExtremes[kind % std::size(kExtremes)];
    return Raw<uint64_t>();
  }
  uint32_t U32() { return static_cast<uint32_t>(U64()); }
  double Double() {
    static constexpr double kValues[] = {0,
                                         1,
                                         -1,
                                         0.5,
                                         1e-300,
                                         1e300,
                                         std::numeric_limits<double>::infinity(),
                                         -std::numeric_limits<double>::infinity(),
                                         std::numeric_limits<double>::quiet_NaN()};
    const uint8_t kind = Byte();
    return kind < 240 ? kValues[kind % std::size(kValues)] : Raw<double>();
  }
  std::string Text(size_t most) {
    const size_t wanted = Below(most + 1);
    const size_t n = std::min(wanted, rest_.size());
    std::string text(rest_.substr(0, n));
    rest_.remove_prefix(n);
    return text;
  }

 private:
  absl::string_view rest_;
};

}  // namespace ballast::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

#endif  // BALLAST_TESTS_FUZZ_INPUT_H_

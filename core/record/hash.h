// XXH3-64 (seed 0), the only checksum of Ballast. Free functions: safe from any thread.
#ifndef BALLAST_CORE_RECORD_HASH_H_
#define BALLAST_CORE_RECORD_HASH_H_

#include <cstdint>
#include <memory>

#include "absl/strings/string_view.h"

namespace ballast {

uint64_t Hash64(absl::string_view bytes);

// The hash of bytes that come in pieces: the same as Hash64 of all pieces one after another. One thread at a time.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  Hasher& Add(absl::string_view bytes);
  Hasher& AddU64(uint64_t value);  // 8 bytes, little-endian
  uint64_t Value() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ballast

#endif  // BALLAST_CORE_RECORD_HASH_H_

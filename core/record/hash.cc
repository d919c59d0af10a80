#include "core/record/hash.h"

#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // the fastest build for this CPU; the same hash
#else
#include <xxhash.h>
#endif

namespace ballast {

uint64_t Hash64(absl::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

struct Hasher::State {
  XXH3_state_t* xxh = XXH3_createState();
  ~State() { XXH3_freeState(xxh); }
};

Hasher::Hasher() : state_(std::make_unique<State>()) { XXH3_64bits_reset(state_->xxh); }
Hasher::~Hasher() = default;

Hasher& Hasher::Add(absl::string_view bytes) {
  XXH3_64bits_update(state_->xxh, bytes.data(), bytes.size());
  return *this;
}

Hasher& Hasher::AddU64(uint64_t value) {
  char bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(value >> (8 * i));
  return Add(absl::string_view(bytes, 8));
}

uint64_t Hasher::Value() const { return XXH3_64bits_digest(state_->xxh); }

}  // namespace ballast

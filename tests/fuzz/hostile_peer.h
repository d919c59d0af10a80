// One peer that sends a server whatever the fuzzer's bytes choose: good calls, so that runs are created, trained, checkpointed and rolled
// back, with spoiled ones in between, half-closes and cancels at any place. BALLAST_FUZZ_TRACE=1 prints each call and its end.
#ifndef BALLAST_TESTS_FUZZ_HOSTILE_PEER_H_
#define BALLAST_TESTS_FUZZ_HOSTILE_PEER_H_

#include "tests/fuzz/input.h"
#include "tests/fuzz/live_server.h"

namespace ballast::fuzz {

// One sequence of calls. When it returns, all of them have ended.
void PlayHostilePeer(Input& in, LiveServer& server);

}  // namespace ballast::fuzz

#endif  // BALLAST_TESTS_FUZZ_HOSTILE_PEER_H_

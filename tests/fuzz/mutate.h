// Messages that were valid, with something wrong in them: a field of any depth with a hostile value, or bytes of the wire changed. One
// thread.
#ifndef BALLAST_TESTS_FUZZ_MUTATE_H_
#define BALLAST_TESTS_FUZZ_MUTATE_H_

#include <google/protobuf/message.h>

#include <string>

#include "tests/fuzz/input.h"

namespace ballast::fuzz {

// The message as it is in five of eight cases; else with changed fields, changed bytes, or cut.
std::string Spoil(Input& in, google::protobuf::Message& message);

}  // namespace ballast::fuzz

#endif  // BALLAST_TESTS_FUZZ_MUTATE_H_

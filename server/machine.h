// What the machine under a server has to give: memory that is free, and how fast its disk takes a log. For CreateRun, which refuses what
// cannot work.
#ifndef BALLAST_SERVER_MACHINE_H_
#define BALLAST_SERVER_MACHINE_H_

#include <cstdint>
#include <string>

namespace ballast {

// Bytes that this process can still take: the least that its address space limit, its control group and the machine leave. UINT64_MAX when
// nothing says. Any thread.
uint64_t FreeMemory();

// Bytes a second that are durable in `dir`, written as a log writes (1 MiB at a time, past the page cache where that is allowed). Takes
// `bytes` of room meanwhile, leaves nothing behind. 0: it cannot be measured. Blocks.
double DiskBytesPerSecond(const std::string& dir, uint64_t bytes = 32u << 20);

}  // namespace ballast

#endif  // BALLAST_SERVER_MACHINE_H_

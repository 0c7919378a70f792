// The limits of the contract, as `stream/events/contract.py`, `event_time.py` and `stream/records.py`. Lengths of texts are
// in characters there; here the bytes are counted, so a text that may be too long is left to Python.
#pragma once

#include <cstddef>
#include <cstdint>

namespace prectr {

constexpr size_t kMaxEvent = 1 << 20, kMaxId = 256, kMaxItems = 200, kMaxText = 2000, kMaxLabel = 256, kMaxEntries = 64;
constexpr size_t kMaxQueryKey = 64 * kMaxText;
constexpr int64_t kMinTs = 946'684'800'000, kMaxTs = 253'402'300'799'999, kMaxPosition = 1'000'000;
constexpr int64_t kMaxClosesAt = kMaxTs + 2 * 366 * 24 * int64_t{3'600'000};

}  // namespace prectr

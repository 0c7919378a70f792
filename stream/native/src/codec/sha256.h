// SHA-256 (FIPS 180-4); with the instructions of the processor where it has them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace prectr {

using Digest = std::array<uint8_t, 32>;

// Hashes `first` followed by `second`.
Digest sha256(const void* first, size_t first_size, const void* second = nullptr, size_t second_size = 0);

}  // namespace prectr

// Impressions and clicks by relevance level, as `state/aggregates.py`.
#pragma once

#include <array>
#include <cstdint>

#include "codec/msgpack.h"

namespace prectr {

// Impressions at levels 1 to 4, then clicks at levels 1 to 4.
struct LevelCounts {
  std::array<int64_t, 8> counts{};

  bool operator==(const LevelCounts&) const = default;
  void add(const LevelCounts& other) {
    for (size_t i = 0; i < counts.size(); i++) counts[i] += other.counts[i];
  }
  void write(Writer& out) const {
    out.array(counts.size());
    for (int64_t count : counts) out.integer(count);
  }
  void read(Reader& in) {
    in.array_of(counts.size());
    for (int64_t& count : counts) count = in.count();
  }
};

// Impressions and clicks by level of a page; one byte per item in both.
LevelCounts count_levels(View levels, View labels);

}  // namespace prectr

#include "events/level_counts.h"

namespace prectr {

LevelCounts count_levels(View levels, View labels) {
  LevelCounts found;
  for (size_t i = 0; i < levels.size(); i++) {
    size_t level = static_cast<uint8_t>(levels[i]) - 1;
    if (level >= 4) Reader::damaged();
    found.counts[level]++;
    if (labels[i]) found.counts[4 + level]++;
  }
  return found;
}

}  // namespace prectr

// The event clock of one task, as `stream/join/event_clock.py`, which has the reasons.
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "codec/msgpack.h"

namespace prectr {

constexpr int64_t kMinWatermark = -(int64_t{1} << 62), kMaxWatermark = int64_t{1} << 62;

struct ClockSettings {
  int64_t lateness, skew, settling_turns, settling_records;
};

class EventClock {
 public:
  explicit EventClock(const ClockSettings& settings) : settings_(settings), step_(settings.skew / 4) {}

  // Reads and writes the MessagePack of `ClockState`.
  void restore(View state);
  void write(Writer& out) const;

  int64_t watermark() const { return watermark_; }
  int64_t progress() const { return accepted_ - uncounted_; }
  int64_t next_expiry() const { return progress() + settings_.skew; }
  int64_t watermark_at(int64_t progress) const {
    return has_settled() ? watermark_ + progress - this->progress() : kMinWatermark + 1;
  }
  bool has_settled() const { return accepted_ != kMinWatermark; }
  bool is_ahead(int64_t ts) const { return ts > accepted_ + settings_.skew; }
  int64_t lead(int64_t ts) const { return ts - accepted_; }
  // Advances by a valid record; returns whether the record is ahead all the same.
  bool observe(int64_t ts, View user_id);

 private:
  struct Voter {
    std::string user_id;
    int64_t ts;
  };
  struct Run {
    int64_t latest, moved;
    bool gapless;
  };

  void set_accepted(int64_t ts);
  void vote_of(int64_t ts, View user_id);
  bool take_large_step(int64_t ts, View user_id);
  bool settles(int64_t ts, View user_id);
  std::vector<int64_t> latest_times(size_t users) const;
  bool is_sparse() const;
  Run& extend_run(int64_t ts, View user_id);
  bool is_outvoted(int64_t near, int64_t oldest, const Run& run) const;
  void vote(const Run& run);
  void move_to(const std::vector<int64_t>& times, size_t votes);

  ClockSettings settings_;
  int64_t step_;
  int64_t accepted_ = kMinWatermark, watermark_ = kMinWatermark, uncounted_ = kMinWatermark;
  int64_t no_change_until_ = kMinWatermark;
  std::list<Voter> recent_;  // the latest user last
  std::unordered_map<View, std::list<Voter>::iterator> by_user_;
  std::vector<std::pair<std::string, Run>> run_;
  int64_t records_ = 0, turns_ = 0;
  bool has_last_user_ = false;
  std::string last_user_;
};

}  // namespace prectr

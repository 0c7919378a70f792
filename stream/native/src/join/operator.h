// Stage `join`, as `stream/join/operator.py`, which is its specification: no I/O, no clock, no threads.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "join/event_clock.h"
#include "join/pending.h"

namespace prectr {

struct JoinSettings {
  int64_t window, retention, time_to_live;
  size_t history_clicks;
  std::unordered_set<std::string> click_actions;
  ClockSettings clock;
};

// In the order of `PageOutcomes`, `ClickOutcomes` and `unreadable`.
struct OutcomeCounts {
  int64_t pages = 0, emitted = 0, open = 0, empty = 0, page_duplicate = 0, page_dead_letter = 0;
  int64_t clicks = 0, joined = 0, duplicate = 0, late = 0, orphan = 0, foreign = 0, waiting = 0, other_action = 0,
          click_dead_letter = 0;
  int64_t unreadable = 0;
};

// A record for the dead letters, which Python puts into words.
struct Rejected {
  enum Kind : uint8_t { kInvalid, kConflict, kFuture };

  Kind kind;
  size_t index = 0;      // of the record in its batch, but for a future event
  bool is_known = false;  // of a conflict: whether the page before is still pending
  std::string known{}, page{};
  int64_t offset = 0, ts = 0, lead = 0;  // of a future event
  std::string value{};
};

class Join {
 public:
  explicit Join(JoinSettings settings) : settings_(std::move(settings)), clock_(settings_.clock) {}

  using Put = std::function<void(View key, const std::string* value)>;

  // State of the store: in any order, then the users that `unloaded` names.
  void restore_meta(View clock, int64_t next_id, const OutcomeCounts& outcomes);
  void restore_page(View key, View stored);
  void restore_click(View stored);
  void restore_future(View stored);
  std::vector<std::string> unloaded() const;
  // Pages without a query key, which is not in ASCII.
  std::vector<std::pair<int64_t, std::string>> odd_queries() const;
  void set_query_key(int64_t id, View key);

  bool is_resident(View user_id) const { return users_.contains(user_id); }
  // `stored` is the user's entry, empty for none. The user is written or evicted by the next `drain`.
  void load_user(View user_id, View stored, bool is_accessed);

  // One record, whose user is resident. `value` and `offset` are kept if it is ahead of the clock.
  void process(Event& event, size_t index, View value, int64_t offset);
  void flush();
  void drain(const Put& put);
  void write_clock(Writer& out) const { clock_.write(out); }

  int64_t watermark() const { return clock_.watermark(); }
  int64_t next_close() const { return queue_.empty() ? kMaxWatermark : (*queue_.begin())->closes_at; }
  int64_t next_id() const { return next_id_; }
  // How many of the future events are ahead now, and by how much at most.
  std::pair<int64_t, int64_t> future_events() const;
  // Users, pages, clicks and future events in memory.
  std::array<size_t, 4> resident() const { return {users_.size(), pages_.size(), clicks_.size(), future_.size()}; }

  OutcomeCounts outcomes;
  std::vector<std::string> joined;  // encoded `JoinedPage`s, for the caller to take, as `rejected`
  std::vector<Rejected> rejected;

 private:
  struct ClosesEarlier {
    bool operator()(const PendingPage* a, const PendingPage* b) const;
  };

  UserState& user(View user_id) { return *users_.at(user_id); }
  UserState& make_user(View user_id);
  void check_new(int64_t id) const;
  void access(UserState& user);
  void on_page(Event& event, size_t index);
  void on_click(const Event& click);
  void join_click(const Event& click, PendingPage& page);
  void run_timers();
  void close(PendingPage& page);
  void write_joined(const PendingPage& page, const LevelCounts& counts);
  void remove(PendingPage& page);
  void expire_clicks(int64_t watermark);
  void remove_click(PendingClick& click);
  void expire_future();
  void reject_future(const FutureEvent& event);
  void drain_users(const Put& put);

  JoinSettings settings_;
  EventClock clock_;
  int64_t next_id_ = 0;
  std::unordered_map<View, std::unique_ptr<UserState>> users_;
  std::vector<UserState*> accessed_;
  std::unordered_map<int64_t, std::unique_ptr<PendingPage>> pages_;
  std::set<PendingPage*, ClosesEarlier> queue_;
  std::vector<int64_t> dirty_pages_;
  std::unordered_map<int64_t, std::unique_ptr<PendingClick>> clicks_;
  std::set<std::pair<int64_t, int64_t>> expiries_;  // (time, id of the click)
  std::vector<int64_t> unwritten_clicks_;
  std::deque<FutureEvent> future_;
  std::vector<std::string> deleted_;
};

}  // namespace prectr

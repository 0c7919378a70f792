#include "join/event_clock.h"

#include <algorithm>
#include <functional>

namespace prectr {
namespace {

constexpr size_t kVoters = 64, kCrowd = 12, kSmallCrowd = 6, kRunUsers = 16;
constexpr int64_t kSkewsPerVote = 24, kSkewsOfAVote = 24 * 7;

size_t two_thirds(size_t number) { return (2 * number + 2) / 3; }

}  // namespace

void EventClock::restore(View state) {
  Reader in(state);
  in.array_of(7);
  bool is_settled = !in.null();
  if (is_settled) set_accepted(in.count());
  uncounted_ = accepted_ - in.integer_in(-Reader::kMaxCount, Reader::kMaxCount);
  for (size_t voters = in.array(); voters--;) {
    in.array_of(2);
    View user_id = in.text();
    vote_of(in.count(), user_id);
  }
  for (size_t users = in.map(); users--;) {
    std::string user_id(in.text());
    in.array_of(3);
    Run run{in.count(), 0, false};
    run.moved = in.count();
    View gapless = in.raw();
    if (gapless != "\xc2" && gapless != "\xc3") Reader::damaged();
    run.gapless = gapless == "\xc3";
    run_.emplace_back(std::move(user_id), run);
  }
  no_change_until_ = run_.empty() ? accepted_ : kMinWatermark;
  records_ = in.count();
  turns_ = in.count();
  has_last_user_ = !in.null();
  if (has_last_user_) last_user_ = in.text();
}

void EventClock::write(Writer& out) const {
  out.array(7);
  if (has_settled()) out.integer(accepted_);
  else out.null();
  out.integer(progress());
  out.array(recent_.size());
  for (const Voter& voter : recent_) out.array(2), out.text(voter.user_id), out.integer(voter.ts);
  out.map(run_.size());
  for (const auto& [user_id, run] : run_) {
    out.text(user_id), out.array(3), out.integer(run.latest), out.integer(run.moved);
    out.raw(run.gapless ? "\xc3" : "\xc2");
  }
  out.integer(records_), out.integer(turns_);
  if (has_last_user_) out.text(last_user_);
  else out.null();
}

void EventClock::vote_of(int64_t ts, View user_id) {
  if (auto found = by_user_.find(user_id); found != by_user_.end()) {
    found->second->ts = ts;
    recent_.splice(recent_.end(), recent_, found->second);
    return;
  }
  if (recent_.size() == kVoters) {
    by_user_.erase(recent_.front().user_id);
    recent_.pop_front();
  }
  recent_.push_back({std::string(user_id), ts});
  by_user_.emplace(recent_.back().user_id, std::prev(recent_.end()));
}

bool EventClock::observe(int64_t ts, View user_id) {
  vote_of(ts, user_id);
  if (ts <= no_change_until_) return false;
  if (ts > accepted_ + step_) return take_large_step(ts, user_id);
  if (ts > accepted_) set_accepted(ts);
  run_.clear();
  no_change_until_ = accepted_;
  return false;
}

void EventClock::set_accepted(int64_t ts) {
  accepted_ = ts;
  watermark_ = ts - settings_.lateness;
}

bool EventClock::take_large_step(int64_t ts, View user_id) {
  if (!has_settled()) {
    if (settles(ts, user_id)) {
      std::vector<int64_t> times = latest_times(kVoters);
      move_to(times, two_thirds(times.size()));
    }
  } else if (!is_ahead(ts) && is_sparse()) {
    set_accepted(ts);
    run_.clear();
    no_change_until_ = ts;
  } else {
    const Run run = extend_run(ts, user_id);
    if (run.gapless && run.moved >= settings_.skew / 2) move_to({run.latest}, 1);
    else vote(run);
  }
  return is_ahead(ts);
}

bool EventClock::settles(int64_t ts, View user_id) {
  records_++;
  turns_ += !has_last_user_ || user_id != last_user_;
  has_last_user_ = true;
  last_user_ = user_id;
  return turns_ >= settings_.settling_turns || records_ >= settings_.settling_records ||
         extend_run(ts, user_id).moved >= kSkewsPerVote * settings_.skew;
}

std::vector<int64_t> EventClock::latest_times(size_t users) const {
  std::vector<int64_t> times;
  for (auto voter = recent_.rbegin(); voter != recent_.rend() && times.size() < users; ++voter)
    times.push_back(voter->ts);
  return times;
}

bool EventClock::is_sparse() const {
  std::vector<int64_t> crowd = latest_times(kCrowd);
  size_t here = std::count_if(crowd.begin(), crowd.end(), [&](int64_t time) { return time >= accepted_ - step_; });
  return crowd.size() < kSmallCrowd || here < two_thirds(crowd.size());
}

EventClock::Run& EventClock::extend_run(int64_t ts, View user_id) {
  no_change_until_ = kMinWatermark;
  auto found = std::find_if(run_.begin(), run_.end(), [&](const auto& entry) { return entry.first == user_id; });
  if (found == run_.end()) return run_.emplace_back(std::string(user_id), Run{ts, 0, !is_ahead(ts)}).second;
  Run& run = found->second;
  if (ts > run.latest) {
    int64_t step = ts - run.latest;
    run.moved += std::min(step, settings_.skew);
    run.gapless = run.gapless && step <= settings_.skew;
    run.latest = ts;
  }
  return run;
}

bool EventClock::is_outvoted(int64_t near, int64_t oldest, const Run& run) const {
  int64_t most = static_cast<int64_t>(recent_.size() / 3) + run.moved / (kSkewsPerVote * settings_.skew);
  int64_t opposed = 0;
  size_t count = 0;
  for (auto voter = recent_.rbegin(); voter != recent_.rend(); ++voter) {
    count++;
    if (voter->ts > near) {
      if (count >= kRunUsers && !opposed) return false;
    } else if (voter->ts >= oldest && ++opposed > most) {
      return true;
    }
  }
  return false;
}

void EventClock::vote(const Run& run) {
  const int64_t near = accepted_ + step_, oldest = accepted_ - kSkewsOfAVote * settings_.skew;
  if (is_outvoted(near, oldest, run)) return;
  std::vector<int64_t> times = latest_times(kVoters);
  auto is_not_ahead = [&](int64_t time) { return time <= near; };
  auto first_not_ahead = std::find_if(times.begin(), times.end(), is_not_ahead);
  if (first_not_ahead - times.begin() >= static_cast<std::ptrdiff_t>(kRunUsers)) {
    times.erase(first_not_ahead, times.end());
    return move_to(times, kRunUsers);
  }
  std::erase_if(times, [&](int64_t time) { return time < oldest; });
  int64_t missing = run.moved / (kSkewsPerVote * settings_.skew);
  int64_t votes = std::max<int64_t>(1, static_cast<int64_t>(two_thirds(times.size())) - missing);
  int64_t ahead = std::count_if(times.begin(), times.end(), [&](int64_t time) { return time > near; });
  if (ahead >= votes && (ahead > 1 || run.moved >= settings_.skew)) move_to(times, votes);
}

void EventClock::move_to(const std::vector<int64_t>& times, size_t votes) {
  const int64_t before = progress();
  std::vector<int64_t> sorted = times;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  int64_t accepted = sorted[votes - 1];
  for (auto time = times.rbegin(); time != times.rend(); ++time)
    if (accepted < *time && *time <= accepted + step_) accepted = *time;
  set_accepted(accepted);
  run_.clear();
  no_change_until_ = accepted;
  uncounted_ = accepted - before - settings_.skew / static_cast<int64_t>(kVoters);
}

}  // namespace prectr

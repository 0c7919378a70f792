// Pages whose attribution window is open, and clicks whose page has not arrived.
#pragma once

#include "events/event.h"
#include "join/user_state.h"

namespace prectr {

// A click that is on its page: what the page's record and its user's history keep of it.
struct JoinedClick {
  int64_t ts;
  std::string item_id;
  std::string encoded;  // a `QueryClick`

  auto operator<=>(const JoinedClick&) const = default;
};

struct PendingPage {
  int64_t id, closes_at, ts;
  UserState* user;
  std::string request_id, query_key, content_hash;
  std::string encoded, levels, labels;
  std::vector<ItemPlace> items;
  std::vector<JoinedClick> joined;
  bool dirty = true, stored = false;

  View item_id(size_t index) const { return View(encoded).substr(items[index].id_start, items[index].id_size); }
};

struct PendingClick {
  int64_t id, ts;
  UserState* user;
  std::string request_id, item_id, action;
  bool has_action, stored = false;

  Event event() const {
    Event click;
    click.kind = Event::kClick;
    click.ts = ts, click.user_id = user->id, click.request_id = request_id, click.item_id = item_id;
    click.has_action = has_action, click.action = action;
    return click;
  }
};

// The key of a pending page, a pending click or a future event in the store.
std::string store_key(char prefix, int64_t id);

// An event that was ahead of the clock when it opened a page, or began to wait for one.
struct FutureEvent {
  int64_t id, ts, expires_at, offset;
  std::string value;
  bool stored = false;
};

}  // namespace prectr

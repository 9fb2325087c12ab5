// The list, live: cells are changed in place, so that what is being read or has the
// focus stays. The order changes by itself only while nobody is at it.
"use strict";
(() => {
  const byID = (id) => document.getElementById(id);
  const live = byID("live"), stale = byID("stale"), announcer = byID("announce"), form = byID("filter");
  const silence = 15000; // ms without an event, after which the stream is given up
  const calm = 5000; // ms between two changes of the order
  const typing = 250; // ms after the last key until the filter applies

  let stream = null, heard = 0, retry = 0, retryTimer = 0;
  let skew = Number(byID("list").dataset.now) - Date.now(); // server's clock − ours
  let swapped = 0, moved = false, fetching = null;
  let counts = null;
  let order = null; // of the rows, as last heard

  const grouped = (n) => n.toLocaleString("en-US");

  // Saying how it is with the stream.

  function say(state, text) {
    live.hidden = false;
    live.dataset.state = state;
    if (live.textContent !== text) live.textContent = text;
  }

  function lost() {
    if (live.dataset.state === "lost") return;
    say("lost", "Not live since " + new Date().toTimeString().slice(0, 8) + ", trying again");
  }

  function connect() {
    disconnect();
    if (document.hidden) return;
    heard = Date.now();
    stream = new EventSource(byID("list").dataset.stream);
    stream.onmessage = (event) => {
      heard = Date.now();
      retry = 0;
      say("live", "Live");
      apply(JSON.parse(event.data));
    };
    stream.onerror = () => {
      lost();
      // The browser tries again by itself, but not after an error of the server's.
      if (stream && stream.readyState === EventSource.CLOSED) again();
    };
  }

  function disconnect() {
    clearTimeout(retryTimer);
    if (stream) stream.close();
    stream = null;
  }

  function again() {
    disconnect();
    retryTimer = setTimeout(connect, Math.min(2000 * 2 ** retry++, 30000));
  }

  // Taking in what changed.

  function apply(update) {
    skew = update.now_ms - Date.now();
    const told = [];
    for (const change of update.rows || []) {
      const row = document.querySelector(`tr[data-id="${change.id}"]`);
      if (row) fill(row, change, told);
    }
    headings(update.groups);
    tally(update.states, told);
    announce(told);
    if (update.order) order = update.order;
    const list = byID("list");
    const shown = Array.from(list.querySelectorAll("tr[data-id]"), (row) => row.dataset.id);
    moved = order !== null && shown.join() !== order.join() || update.total !== Number(list.dataset.total);
    settle();
    since();
  }

  function fill(row, change, told) {
    const state = row.querySelector(".state");
    if (state.dataset.state !== change.state) {
      state.dataset.state = change.state;
      state.querySelector("use").setAttribute("href", "#shape-" + change.state);
      state.lastElementChild.textContent = change.state;
      const why = change.state === "down" ? ": " + change.reason : "";
      told.push(row.querySelector(".c-target a").textContent + " is " + change.state + why);
      flash(row);
    }
    for (const cell of row.querySelectorAll("[data-cell]")) {
      switch (cell.dataset.cell) {
        case "sparkline":
          picture(cell, change.sparkline);
          break;
        case "failed":
          failed(cell, change.failed_at_ms);
          break;
        case "loss":
          cell.toggleAttribute("data-lossy", change.lossy);
          // falls through
        default:
          if (cell.textContent !== change[cell.dataset.cell]) cell.textContent = change[cell.dataset.cell];
      }
    }
  }

  // An animation of another name begins anew without having the page laid out between,
  // which a hundred rows would do a hundred times.
  function flash(row) {
    row.dataset.changed = row.dataset.changed === "once" ? "again" : "once";
  }

  // A picture is drawn by the server from numbers alone.
  function picture(cell, svg) {
    const drawn = new DOMParser().parseFromString(svg, "text/html").body.firstElementChild;
    if (drawn) cell.replaceChildren(document.adoptNode(drawn));
  }

  function failed(cell, at) {
    if (!at) return;
    const time = new Date(at).toISOString().replace(/\.\d+Z$/, "Z");
    if (cell.getAttribute("datetime") === time) return;
    cell.setAttribute("datetime", time);
    cell.title = time;
  }

  function headings(texts) {
    if (!texts) return;
    const all = document.querySelectorAll(".tally");
    if (all.length === texts.length) all.forEach((e, i) => { e.textContent = texts[i]; });
  }

  function tally(states, told) {
    const now = { ...states, all: states.down + states.ours + states.unknown + states.up };
    for (const e of document.querySelectorAll("[data-count]")) {
      e.textContent = grouped(now[e.dataset.count]);
      e.parentElement.toggleAttribute("data-none", !now[e.dataset.count]);
    }
    if (counts && counts.down !== now.down && told.length === 0) told.push(`${grouped(now.down)} of ${grouped(now.all)} targets are down`);
    counts = now;
  }

  function announce(told) {
    if (told.length > 3) told = [`${told.length} targets changed their state, ${grouped(counts.down)} of ${grouped(counts.all)} are down`];
    if (told.length > 0) announcer.textContent = told.join(". ");
  }

  // Go's ago says the same.
  function since() {
    for (const e of document.querySelectorAll("time[data-cell=failed][datetime]")) {
      const s = Math.floor((Date.now() + skew - Date.parse(e.getAttribute("datetime"))) / 1000);
      const text = s < 1 ? "now" : s < 60 ? `${s} s ago` : s < 3600 ? `${Math.floor(s / 60)} min ago`
        : s < 48 * 3600 ? `${Math.floor(s / 3600)} h ago` : `${Math.floor(s / 86400)} d ago`;
      if (e.textContent !== text) e.textContent = text;
    }
  }

  // The order.

  function busy() {
    const list = byID("list");
    return list.contains(document.activeElement) || list.matches(":hover") || String(getSelection()) !== "";
  }

  function settle() {
    if (!moved) {
      stale.hidden = true;
    } else if (busy()) {
      stale.hidden = false;
    } else if (Date.now() - swapped >= calm) {
      swap(location.href);
    }
  }

  // swap puts another list, rendered by the server, in place of the one shown. It is
  // false if there is none, and nobody has asked for yet another meanwhile.
  async function swap(address) {
    if (fetching) fetching.abort();
    const mine = new AbortController();
    fetching = mine;
    swapped = Date.now();
    let page;
    try {
      const answer = await fetch(address, { signal: mine.signal });
      page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (mine.signal.aborted) return true;
      if (!answer.ok || !page.getElementById("list")) return false;
    } catch {
      return mine.signal.aborted;
    }
    const focus = focused();
    byID("list").replaceWith(document.adoptNode(page.getElementById("list")));
    document.querySelector(".tabs").replaceWith(document.adoptNode(page.querySelector(".tabs")));
    if (focus) document.querySelector(focus)?.focus({ preventScroll: true });
    moved = false;
    order = null;
    stale.hidden = true;
    connect();
    return true;
  }

  // focused is a selector of what has the focus within what swap replaces.
  function focused() {
    const at = document.activeElement, row = at.closest("tr[data-id]"), head = at.closest("thead th"), tab = at.closest(".tab");
    if (row) return `tr[data-id="${row.dataset.id}"] a`;
    if (head) return "thead th." + head.classList[0] + " a";
    if (tab) return tab.dataset.state ? `.tab[data-state="${tab.dataset.state}"]` : ".tab";
    return null;
  }

  byID("refresh").addEventListener("click", () => swap(location.href));

  // The filter applies while it is typed.

  let typed = 0;
  form.querySelector("button").hidden = true;

  function filter() {
    clearTimeout(typed);
    const values = new URLSearchParams(new FormData(form));
    for (const [name, value] of Array.from(values)) if (value === "" || name + value === "sortstate") values.delete(name);
    const address = "/" + (values.size ? "?" + values : "");
    history.replaceState(null, "", address);
    swap(address).then((done) => { if (!done) location.reload(); });
  }

  form.addEventListener("input", (event) => {
    clearTimeout(typed);
    typed = setTimeout(filter, event.target.type === "search" ? typing : 0);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    filter();
  });

  // A hidden page needs no stream.

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      disconnect();
      say("paused", "Paused");
    } else {
      connect();
    }
  });
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });

  setInterval(() => {
    since();
    settle();
    if (stream && Date.now() - heard > silence) {
      lost();
      again();
    }
  }, 1000);

  say("paused", "Connecting");
  connect();
})();

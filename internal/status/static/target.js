// A target's page, live: what has changed is put in place of what was, and what is
// being read, selected or has the focus stays. A conversation that was chosen stays
// too, when probed has long forgotten it.
"use strict";
(() => {
  const every = 2000; // ms between two looks
  const byID = (id) => document.getElementById(id);
  const live = byID("live"), page = byID("page"), pause = byID("pause"), run = byID("run"), told = byID("told");
  let tag = page.dataset.tag, timer = 0, paused = false, asking = null;

  function say(state, text) {
    live.hidden = false;
    live.dataset.state = state;
    if (live.textContent !== text) live.textContent = text;
  }

  function next() {
    clearTimeout(timer);
    if (!paused && !document.hidden) timer = setTimeout(look, every);
  }

  // look asks whether there is news. The address is the page's own, so a chosen
  // conversation stays chosen.
  async function look() {
    if (asking) return;
    asking = new AbortController();
    const limit = setTimeout(() => asking.abort(), 15000);
    try {
      const answer = await fetch(location.pathname + location.search, {
        headers: { "If-None-Match": tag }, cache: "no-store", signal: asking.signal,
      });
      if (answer.status === 404) {
        say("lost", "This target is not probed any more");
        return;
      }
      if (answer.status === 200) {
        const text = await answer.text();
        if (!paused) {
          take(new DOMParser().parseFromString(text, "text/html"));
          tag = answer.headers.get("ETag") || "";
        }
      } else if (answer.status !== 304) {
        throw new Error(String(answer.status));
      }
      if (!paused) say("live", "Live");
    } catch (e) {
      if (!paused) say("lost", "Not live: probed does not answer");
    } finally {
      clearTimeout(limit);
      asking = null;
      next();
    }
  }

  function take(fresh) {
    for (const now of document.querySelectorAll("[data-live]")) {
      const then = fresh.getElementById(now.id);
      if (!then || selecting(now)) continue;
      if (now.id === "ladder" && then.hasAttribute("data-gone")) {
        if (page.hasAttribute("data-pinned") && !now.hasAttribute("data-gone")) {
          byID("gone").hidden = false;
          continue;
        }
      }
      if (now.innerHTML !== then.innerHTML) replace(now, then);
    }
    // The chosen one's tab is gone with it, or is still there.
    const h2 = ["over-time", "flows-heading"];
    for (const id of h2) {
      const now = byID(id), then = fresh.getElementById(id);
      if (now && then && now.textContent !== then.textContent) now.replaceChildren(...then.childNodes);
    }
  }

  // selecting reports whether the reader has selected text in a part of the page.
  function selecting(part) {
    const s = getSelection();
    return s !== null && !s.isCollapsed && part.contains(s.anchorNode);
  }

  // replace puts new content into a part of the page: with the same details open, the
  // same boxes scrolled, and the focus on the same thing.
  function replace(now, then) {
    const focused = now.contains(document.activeElement) ? document.activeElement : null;
    const open = Array.from(now.querySelectorAll("details[open]"), (d) => d.id);
    const scrolled = Array.from(now.querySelectorAll(".scroll"), (e) => [e.id, e.scrollLeft]);
    now.replaceChildren(...then.childNodes);
    for (const id of open) {
      const d = byID(id);
      if (d) d.open = true;
    }
    for (const [id, left] of scrolled) {
      const e = byID(id);
      if (e) e.scrollLeft = left;
    }
    if (!focused) return;
    const again = focused.id ? byID(focused.id)
      : focused.tagName === "SUMMARY" ? byID(focused.parentElement.id)?.querySelector("summary")
      : Array.from(now.querySelectorAll("a")).find((a) => a.getAttribute("href") === focused.getAttribute("href"));
    (again || now).focus({ preventScroll: true });
  }

  pause.hidden = false;
  byID("reload").hidden = true; // it does that itself
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Resume" : "Pause";
    if (paused) {
      clearTimeout(timer);
      say("paused", "Paused");
    } else {
      look();
    }
  });

  run.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = run.querySelector("button");
    button.disabled = true;
    tell("Probing …");
    try {
      const answer = await fetch(run.action, { method: "POST", headers: { Accept: "application/json" } });
      const made = await answer.json();
      if (answer.ok) {
        const rtt = made.handshake_rtt_seconds;
        tell("Probe no. " + made.number + ": " + (made.reason || made.discarded || made.verdict) +
          (rtt === undefined ? "" : ", " + duration(rtt)));
      } else {
        tell("No probe: " + made.error);
      }
    } catch (e) {
      tell("No probe: probed does not answer");
    }
    button.disabled = false;
    if (!paused) look();
  });

  function tell(text) {
    told.hidden = false;
    told.textContent = text;
  }

  function duration(seconds) {
    const [unit, scale] = seconds < 1e-3 ? ["µs", 1e6] : seconds < 1 ? ["ms", 1e3] : ["s", 1];
    return Number((seconds * scale).toPrecision(4)) + " " + unit;
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : paused || look()));
  say("live", "Live");
  next();
})();

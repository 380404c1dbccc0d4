"use strict";
// Keeps a page up to date while it is seen, without moving focus, scroll position or what is ticked. Pages work without it.

const live = document.querySelector("#live[data-live]");
const trouble = document.getElementById("trouble");
const pulse = document.getElementById("pulse");

/** Make `now` like `then`, touching only what differs. Ticks and open details are the reader's: they stay. */
function morph(now, then) {
  if (now.nodeType !== then.nodeType || now.nodeName !== then.nodeName || (now.id || "") !== (then.id || "")) {
    now.replaceWith(then);
    return;
  }
  if (now.nodeType !== Node.ELEMENT_NODE) {
    if (now.nodeValue !== then.nodeValue) now.nodeValue = then.nodeValue;
    return;
  }
  // A box that stands for another job now must not stay ticked for it.
  if (now.nodeName === "INPUT" && now.value !== then.value) {
    const ticked = picked.has(then.value);
    now.replaceWith(then);
    then.checked = ticked;
    return;
  }
  for (const { name } of [...now.attributes]) {
    if (!then.hasAttribute(name) && name !== "open") now.removeAttribute(name);
  }
  for (const { name, value } of [...then.attributes]) {
    if (now.getAttribute(name) !== value) now.setAttribute(name, value);
  }
  const old = [...now.childNodes], fresh = [...then.childNodes];
  fresh.forEach((node, at) => (at < old.length ? morph(old[at], node) : now.append(node)));
  old.slice(fresh.length).forEach((node) => node.remove());
}

const picked = new Set();

function notePicks() {
  picked.clear();
  document.querySelectorAll('#live input[name="id"]:checked').forEach((box) => picked.add(box.value));
}

function show(html) {
  if (live.querySelector("[data-reload]")) { // Redis was away when this was asked for: now the whole page can be had
    location.reload();
    return;
  }
  notePicks();
  const page = new DOMParser().parseFromString(html, "text/html");
  const then = live.cloneNode(false);
  then.append(...page.body.childNodes);
  morph(live, then);
  document.querySelectorAll('#live input[name="id"]').forEach((box) => { box.checked = picked.has(box.value); });
}

function say(text, state) {
  if (trouble) {
    trouble.hidden = !text;
    if (trouble.textContent !== text) trouble.textContent = text;
  }
  if (pulse) {
    pulse.dataset.state = state;
    pulse.textContent = { live: "Live", trouble: "Redis is away", lost: "Not live", gone: "Gone" }[state];
  }
}

let source = null;

function open() {
  if (source || !live) return;
  source = new EventSource(location.href);
  source.addEventListener("live", (event) => {
    show(JSON.parse(event.data));
    say("", "live");
  });
  source.addEventListener("trouble", (event) => say("This is not the present state: " + JSON.parse(event.data), "trouble"));
  source.addEventListener("gone", (event) => say("This is not there any more: " + JSON.parse(event.data), "gone"));
  source.onerror = () => {
    say("This is not the present state: the dashboard does not answer. Trying again …", "lost");
    if (source && source.readyState === EventSource.CLOSED) { // refused for good, or the login is over: look again later
      close();
      setTimeout(open, 5000);
    }
  };
}

function close() {
  if (source) source.close();
  source = null;
}

document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
window.addEventListener("pagehide", close);
window.addEventListener("pageshow", () => document.hidden || open());

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-all]")) {
    event.target.closest("table").querySelectorAll('input[name="id"]').forEach((box) => { box.checked = event.target.checked; });
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  const first = document.querySelector("input[data-first]");
  if (first) {
    event.preventDefault();
    first.focus();
  }
});

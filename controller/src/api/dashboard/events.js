// What happens, as it happens: the last fifty events of nodes, secrets, quotas, abuse, bans and tenants. Allocations are too many.

import { events, isSignedIn } from "./api.js";
import { byId, make, write } from "./dom.js";
import { clock, day } from "./format.js";

const KINDS = "node,secret,quota,abuse,ban,tenant,events";
const SHOWN = 50;
const LONGEST = 300;

let shown = [];
let last = "";
let open = null;
let again = 0;
let pause = 1000;
let drawing = 0;

function words({ node, tenant, fields = {} }) {
  const told = Object.entries(fields).map(([name, value]) => `${name}=${Array.isArray(value) ? value.join(",") : value}`);
  const about = [node ? `node=${node}` : "", tenant ? `tenant=${tenant}` : ""];
  const all = [...about, ...told].filter((part) => part !== "").join(" ");
  return all.length > LONGEST ? `${all.slice(0, LONGEST)}…` : all;
}

function line(event) {
  const at = event.at_milliseconds / 1000;
  const time = event.at_milliseconds ? make("time", { dateTime: new Date(event.at_milliseconds).toISOString(), title: `${day(at)} UTC` }, clock(at)) : null;
  return make("li", {}, time, make("b", {}, event.kind), words(event));
}

function draw() {
  drawing = 0;
  const lines = shown.length === 0 ? [make("li", {}, "Nothing has happened yet.")] : shown.map(line);
  byId("event-list").replaceChildren(...lines);
}

// A flood of events is drawn once a quarter of a second.
function drawSoon() {
  if (drawing === 0) drawing = setTimeout(draw, 250);
}

function take({ id, data }) {
  pause = 1000;
  if (id) last = id;
  try {
    shown = [JSON.parse(data), ...shown.slice(0, SHOWN - 1)];
  } catch {
    return;
  }
  drawSoon();
}

async function read() {
  clearTimeout(again);
  if (open !== null || !isSignedIn() || document.hidden) return;
  const mine = new AbortController();
  open = mine;
  try {
    write(byId("events-state"), "as they happen");
    const query = last === "" ? `kinds=${KINDS}&after=start` : `kinds=${KINDS}`;
    await events(`v1/events?${query}`, last, mine.signal, take);
  } catch (error) {
    if (!mine.signal.aborted) write(byId("events-state"), `not followed: ${error.status ? error.message : "the controller does not answer"}`);
  }
  if (open === mine) {
    open = null;
    // A controller that is full of readers, or gone, is asked ever more seldom.
    again = setTimeout(read, pause);
    pause = Math.min(pause * 2, 60_000);
  }
}

// A page that nobody looks at leaves its place to others.
export function follow() {
  if (document.hidden) {
    open?.abort();
    open = null;
    clearTimeout(again);
  } else {
    read();
  }
}

export function start() {
  shown = [];
  last = "";
  draw();
  follow();
}

export function stop() {
  open?.abort();
  open = null;
  clearTimeout(again);
}

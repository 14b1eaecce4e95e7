// Who uses most, who is suspected and why, and who is not let in.

import { ask } from "./api.js";
import { byId, number, rows, text, write } from "./dom.js";
import { ago, bytes, count, day, orNothing, scaled } from "./format.js";

const SHOWN = 20;

const who = ({ tenant, user, network }) => {
  if (network !== null && network !== undefined) return network;
  const name = user === null || user === undefined || user === "" ? "nobody in particular" : user;
  return tenant === null || tenant === undefined || tenant === "default" ? name : `${tenant}/${name}`;
};

const both = (volume) => bytes(volume.bytes_to_peers + volume.bytes_to_clients);

function talker(it) {
  return {
    key: `${it.tenant} ${it.user} ${it.network}`,
    cells: [
      { text: who(it), className: "wide" },
      number(it.nodes),
      number(scaled(it.bits_per_second, "bit/s")),
      number(both(it.last_minute)),
      number(both(it.last_hour)),
      number(count(it.addresses)),
      number(count(it.peers)),
      number(count(it.failures)),
    ],
  };
}

function suspect(it) {
  const done = it.banned ? "banned" : it.throttled ? "held to little" : it.would;
  return {
    key: `${it.rule} ${who(it)}`,
    cells: [
      { text: who(it), className: "wide" },
      text(it.rule.replaceAll("_", " ")),
      { text: it.evidence, className: "wide" },
      text(ago(it.last)),
      { text: done, className: it.banned ? "wide bad" : "wide" },
    ],
  };
}

function ban(it) {
  const whom = it.kind === "tenant" ? `tenant ${it.tenant}` : it.kind === "user" ? who(it) : `${it.kind} ${it.network}`;
  return {
    key: it.id,
    cells: [
      { text: whom, className: "wide" },
      { text: it.reason, className: "wide" },
      text(it.automatic ? `rule ${it.by}` : it.by),
      text(`${day(it.since)} UTC`),
      text(orNothing(it.until, (end) => `${day(end)} UTC`)),
    ],
  };
}

const more = (shown, total) => (total > shown ? `${count(shown)} of ${count(total)}` : count(total));

export async function refresh() {
  const asked = [`v1/usage/top?of=${byId("talkers-of").value}&limit=${SHOWN}`, `v1/abuse?limit=${SHOWN}`, `v1/bans?limit=${SHOWN}`];
  const [top, abuse, bans] = await Promise.all(asked.map(ask));
  rows(byId("talker-rows"), top.talkers.map(talker), 8, "Nobody has used the fleet within the last hour.");
  rows(byId("suspect-rows"), abuse.suspects.map(suspect), 5, "Nobody is suspected.");
  rows(byId("ban-rows"), bans.bans.map(ban), 5, "Nobody is banned.");
  write(byId("suspects-count"), more(abuse.suspects.length, abuse.total));
  write(byId("bans-count"), more(bans.bans.length, bans.total));
}

export function start(again) {
  byId("talkers-of").addEventListener("change", again);
}

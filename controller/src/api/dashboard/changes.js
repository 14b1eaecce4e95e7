// What changes: relays that drain, a policy on its way, and the generations of the secrets.

import { ask } from "./api.js";
import { byId, make, number, rows, text, write } from "./dom.js";
import { ago, count, day, orNothing, until } from "./format.js";

const STAGES = {
  all: "Every relay has the policy",
  pending: "A changed policy waits for a relay to try it",
  canary: "One relay tries a changed policy",
  stopped: "A changed policy was stopped",
};

function showRollout({ stage, generation, node, reason }) {
  const who = node === null ? "" : `: ${node}`;
  const why = reason === null ? "" : `, ${reason}`;
  const place = byId("rollout");
  write(place, `${STAGES[stage] ?? stage}${who}${why} (generation ${generation}).`);
  place.className = stage === "stopped" ? "bad" : "";
}

function drain(node) {
  const deadline = node.drain_deadline;
  return {
    key: node.node,
    cells: [
      text(node.node),
      number(count(node.load.allocations)),
      text(deadline === null ? "none known" : `${day(deadline)} UTC, ${until(deadline)}`),
      text(node.connected ? "open" : "lost"),
    ],
  };
}

function secret(it) {
  const behind = it.acknowledged < it.of;
  return {
    key: it.id,
    cells: [
      { text: String(it.id), className: "number" },
      text(it.scope),
      { nodes: [it.state, it.minted ? make("small", {}, "credentials are minted with it") : null], className: it.state === "revoked" ? "bad" : "" },
      text(`${day(it.created_at)} UTC`),
      text(orNothing(it.last_used, ago)),
      text(`${it.acknowledged} of ${it.of}`, behind ? "number warn" : "number"),
      text(orNothing(it.accept_until, (end) => `${day(end)} UTC`)),
    ],
  };
}

export async function refresh() {
  const asked = ["v1/rollout", "v1/nodes?state=draining&limit=100", "v1/secrets"];
  const [rollout, draining, secrets] = await Promise.all(asked.map(ask));
  showRollout(rollout);
  const drains = draining.nodes.map(drain);
  if (draining.total > drains.length) drains.push({ key: " ", cells: [text(`and ${count(draining.total - drains.length)} more`), text(""), text(""), text("")] });
  rows(byId("drain-rows"), drains, 4, "No relay drains.");
  // The latest are those that matter.
  rows(byId("secret-rows"), secrets.secrets.slice(-100).reverse().map(secret), 7, "There are no secrets.");
}

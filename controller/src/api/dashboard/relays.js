// The relays, a page of fifty at a time: the controller chooses and orders them, so that a thousand cost no more than fifty.

import { ask } from "./api.js";
import { bar, byId, make, number, rows, text, write } from "./dom.js";
import { bits, count } from "./format.js";

const PAGE = 50;

let skip = 0;
let sort = "node";

const COLOURS = { healthy: "good", starting: "soft", unmanaged: "warn", unhealthy: "bad", gone: "bad" };

function state(node) {
  const words = node.draining ? "draining" : node.health;
  const colour = node.draining ? "warn" : COLOURS[node.health];
  const listed = node.listed ? "in lists" : "not in lists";
  const why = node.reason !== null && node.reason !== words ? `${listed}: ${node.reason}` : listed;
  return [make("span", { className: colour ?? "" }, words), make("small", {}, why)];
}

function row(node) {
  const { load, rates } = node;
  const level = node.saturation < 0.7 ? "ok" : node.saturation < 0.85 ? "warn" : "crit";
  const listeners = node.listeners.map((it) => `${it.transport} ${it.address}${it.works ? "" : " (does not work)"}`);
  return {
    key: node.node,
    cells: [
      text(node.node),
      text(node.zone === "" ? node.region : `${node.region} / ${node.zone}`),
      { nodes: state(node), className: "wide" },
      number(count(load.allocations)),
      number(`${count(load.relayed_ports_used)} / ${count(load.relayed_ports_total)}`),
      number(bits(rates.bytes_from_clients + rates.bytes_to_clients)),
      { nodes: bar(node.saturation, level) },
      { nodes: listeners.slice(0, 6).flatMap((line, place) => (place === 0 ? [line] : [make("br"), line])) },
      text(node.version),
    ],
  };
}

export async function refresh() {
  const query = new URLSearchParams({ sort, skip, limit: PAGE });
  const name = byId("relays-name").value.trim();
  const wanted = byId("relays-state").value;
  if (name !== "") query.set("name", name);
  if (wanted !== "") query.set("state", wanted);
  const { nodes, total, realm } = await ask(`v1/nodes?${query}`);
  if (skip > 0 && skip >= total) {
    skip = 0;
    return refresh();
  }
  write(byId("realm"), realm);
  rows(byId("relays-rows"), nodes.map(row), 9, "No relay is like that.");
  const page = total === 0 ? "none" : `${count(skip + 1)} to ${count(skip + nodes.length)} of ${count(total)}`;
  write(byId("relays-page"), page);
  byId("relays-before").disabled = skip === 0;
  byId("relays-after").disabled = skip + PAGE >= total;
  return undefined;
}

export function start(again) {
  const from = (first) => {
    skip = first;
    again();
  };
  byId("relays-before").addEventListener("click", () => from(Math.max(0, skip - PAGE)));
  byId("relays-after").addEventListener("click", () => from(skip + PAGE));
  byId("relays-state").addEventListener("change", () => from(0));
  let typing = 0;
  byId("relays-name").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => from(0), 250);
  });
  for (const button of document.querySelectorAll("#relays th button")) {
    button.addEventListener("click", () => {
      sort = button.dataset.sort;
      for (const other of document.querySelectorAll("#relays th button")) other.closest("th").removeAttribute("aria-sort");
      // Names come as they are, figures from the largest.
      button.closest("th").setAttribute("aria-sort", sort === "node" || sort === "region" ? "ascending" : "descending");
      from(0);
    });
  }
}

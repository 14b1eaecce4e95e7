// What the fleet can hold and holds, what needs a look, and the regions with their zones.

import { ask } from "./api.js";
import { offer } from "./course.js";
import { bar, byId, make, number, rows, text, write } from "./dom.js";
import { bits, count, duration, of, orNothing } from "./format.js";

const traffic = (rates) => rates.bytes_from_clients + rates.bytes_to_clients;

// What is left where one of several zones fails. With a single one nothing is.
const withoutZone = (totals, zones) => (zones.length > 1 ? orNothing(totals.allocations.headroom_n1, count) : "–");

// Each figure: its name, what it says, and what stands below.
function figures({ total, zones }) {
  const { allocations, relayed_ports: ports, rates } = total;
  return [
    ["Relays in lists", `${count(total.listed)} / ${count(total.nodes)}`, ""],
    ["Allocations", count(allocations.used), `of ${orNothing(allocations.limit, count)}, at most ${count(allocations.peak)}`],
    ["Headroom", orNothing(allocations.headroom, count), "allocations below 80 %"],
    ["Without largest zone", withoutZone(total, zones), zones.length > 1 ? "allocations left if it fails" : "there is one zone"],
    ["Full in", orNothing(total.seconds_to_full, duration), total.seconds_to_full === null ? "use does not grow" : "if use goes on"],
    ["Relayed ports", count(ports.used), `of ${orNothing(ports.limit, count)}`],
    ["Traffic", bits(traffic(rates)), `${bits(rates.bytes_from_clients)} in, ${bits(rates.bytes_to_clients)} out`],
    ["Saturation", `${Math.round(total.saturation * 100)} %`, { ok: "there is room", warn: "from 70 %", crit: "from 85 %" }[total.state]],
  ];
}

function showFigures(capacity) {
  const place = byId("figures");
  const wanted = figures(capacity);
  if (place.children.length !== wanted.length) {
    place.replaceChildren(...wanted.map(([name]) => make("div", {}, make("dt", {}, name), make("dd"), make("dd"))));
  }
  wanted.forEach(([, value, below], index) => {
    const [, figure, under] = place.children[index].children;
    write(figure, value);
    write(under, below);
  });
}

// Commands stand between backquotes.
const words = (text) => text.split("`").map((part, place) => (place % 2 === 1 ? make("code", {}, part) : part)).filter((part) => part !== "");

function showAttention({ items, total }) {
  const place = byId("attention");
  const lines = items.map((item) => {
    const subject = item.subject === "" ? item.about : `${item.about} ${item.subject}`;
    const severity = item.severity === "critical" ? "Critical" : "Warning";
    return make("li", { className: item.severity }, make("b", {}, `${severity}: ${subject}`), ` ${item.what}`, make("span", {}, ...words(item.remedy)));
  });
  if (total > items.length) lines.push(make("li", {}, `and ${count(total - items.length)} more`));
  if (lines.length === 0) lines.push(make("li", {}, "Nothing."));
  const same = place.children.length === lines.length && lines.every((line, index) => line.isEqualNode(place.children[index]));
  if (!same) place.replaceChildren(...lines);
}

function placeRow(name, key, totals, zones) {
  return {
    key,
    cells: [
      text(name),
      number(`${count(totals.listed)} / ${count(totals.nodes)}`),
      number(of(totals.allocations)),
      number(orNothing(totals.allocations.headroom, count)),
      number(withoutZone(totals, zones)),
      number(of(totals.relayed_ports)),
      number(bits(traffic(totals.rates))),
      number(orNothing(totals.seconds_to_full, duration)),
      { nodes: bar(totals.saturation, totals.state) },
    ],
  };
}

function showPlaces({ regions, zones }) {
  const shown = regions.flatMap((region) => {
    const own = zones.filter((zone) => zone.region === region.region);
    const named = own.filter((zone) => zone.zone !== "");
    const below = named.map((zone) => placeRow(`${region.region} / ${zone.zone}`, `zone ${zone.region}/${zone.zone}`, zone, []));
    return [placeRow(region.region, `region ${region.region}`, region, own), ...below];
  });
  rows(byId("places-rows"), shown, 9, "There are no relays.");
}

export async function refresh() {
  const [capacity, attention] = await Promise.all([ask("v1/capacity?summary=true"), ask("v1/attention")]);
  showFigures(capacity);
  showAttention(attention);
  showPlaces(capacity);
  offer(capacity.regions.map((region) => region.region));
}

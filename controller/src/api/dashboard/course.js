// How use has gone: two charts, of the fleet or of one region, over a quarter of an hour or a day.

import { ask } from "./api.js";
import { draw } from "./chart.js";
import { byId, make, write } from "./dom.js";
import { bits, clock, count, now } from "./format.js";

// Seconds that each choice shows, and the longest time between two that are joined.
const PACES = { moment: { span: 900, gap: 20 }, minute: { span: 86_400, gap: 180 } };

let moments = [];
let shown = "";

const region = () => byId("course-region").value;
const pace = () => byId("course-pace").value;

export async function refresh() {
  const wanted = `${pace()} ${region()}`;
  if (wanted !== shown) moments = [];
  shown = wanted;
  const query = new URLSearchParams({ resolution: pace() });
  if (region() !== "") query.set("region", region());
  // The last minute still runs, and is asked for again.
  if (moments.length > 0) query.set("from", moments.at(-1).at);
  const answer = await ask(`v1/capacity/history?${query}`);
  if (wanted !== `${pace()} ${region()}`) return;
  const added = answer.moments;
  const oldest = (added.at(-1)?.at ?? now()) - PACES[pace()].span;
  const before = moments.filter((moment) => moment.at >= oldest && !(added.length > 0 && moment.at >= added[0].at));
  moments = [...before, ...added];
  show();
}

export function show() {
  const { gap } = PACES[pace()];
  const last = moments.at(-1);
  const common = { moments, gap, clock };
  write(byId("allocations-said"), last ? count(last.allocations) : "");
  draw(byId("allocations-chart"), {
    ...common,
    title: "Allocations",
    unit: count,
    limit: last?.allocation_limit ?? null,
    lines: [{ name: "allocations", className: "first", of: (moment) => moment.allocations }],
  });
  const said = byId("traffic-said");
  said.replaceChildren(
    make("span", { className: "key" }, "from clients (solid)"), ` ${last ? bits(last.bytes_from_clients) : ""} `,
    make("span", { className: "key second" }, "to clients (dashed)"), ` ${last ? bits(last.bytes_to_clients) : ""}`,
  );
  draw(byId("traffic-chart"), {
    ...common,
    title: "Traffic",
    unit: bits,
    limit: null,
    lines: [
      { name: "from clients", className: "first", of: (moment) => moment.bytes_from_clients },
      { name: "to clients", className: "second", of: (moment) => moment.bytes_to_clients },
    ],
  });
}

// Offers the regions that there are.
export function offer(names) {
  const select = byId("course-region");
  const known = [...select.options].slice(1).map((option) => option.value);
  if (known.length === names.length && known.every((name, place) => name === names[place])) return;
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...names.map((name) => make("option", { value: name }, name)));
  select.value = names.includes(chosen) ? chosen : "";
}

export function start(again) {
  byId("course-region").addEventListener("change", again);
  byId("course-pace").addEventListener("change", again);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width && moments.length > 0) show();
    width = innerWidth;
  });
}

// A chart of lines over time, drawn as SVG: every pixel comes from the numbers, and nothing is scaled that holds text.

const NAMESPACE = "http://www.w3.org/2000/svg";
const LEFT = 64;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 22;

function shape(name, attributes, words) {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (words !== undefined) element.textContent = words;
  return element;
}

// A number that is not below `most`, and round, as its half is. From two on, so that what is counted is told in whole numbers.
function roundUp(most) {
  if (most <= 2) return 2;
  const size = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 4, 6, 8, 10].map((step) => step * size).find((step) => step >= most * 0.999);
}

// Draws into `place` the `lines`, each { name, className, of }, over `moments`, which have `at`. `gap` is the longest time between two
// that belong together; `limit` is what the first line cannot pass, shown where it is in sight.
export function draw(place, { title, moments, lines, gap, unit, limit, clock }) {
  const width = Math.max(place.clientWidth, 200);
  const height = Math.max(place.clientHeight, 120);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": said(title, moments, lines, unit) });
  const highest = moments.reduce((most, moment) => Math.max(most, ...lines.map((line) => line.of(moment))), 0);
  const top = roundUp(highest);
  const first = moments[0]?.at ?? 0;
  const span = Math.max((moments.at(-1)?.at ?? 0) - first, gap);
  const x = (at) => LEFT + ((at - first) / span) * (width - LEFT - RIGHT);
  const y = (value) => TOP + (1 - value / top) * (height - TOP - BOTTOM);
  for (const part of [0, 0.5, 1]) {
    const level = Math.round(y(top * part)) + 0.5;
    svg.append(shape("line", { class: "rule", x1: LEFT, x2: width - RIGHT, y1: level, y2: level }));
    svg.append(shape("text", { x: LEFT - 6, y: level + 4, "text-anchor": "end" }, unit(top * part)));
  }
  if (limit !== null && limit <= top) {
    svg.append(shape("line", { class: "limit", x1: LEFT, x2: width - RIGHT, y1: y(limit), y2: y(limit) }));
  }
  if (moments.length > 0) {
    svg.append(shape("text", { x: LEFT, y: height - 6 }, clock(first)));
    svg.append(shape("text", { x: width - RIGHT, y: height - 6, "text-anchor": "end" }, clock(moments.at(-1).at)));
  } else {
    svg.append(shape("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "Nothing is known of this yet"));
  }
  for (const line of lines) {
    let path = "";
    let before = null;
    for (const moment of moments) {
      const joins = before !== null && moment.at - before <= gap;
      path += `${joins ? "L" : "M"}${x(moment.at).toFixed(1)} ${y(line.of(moment)).toFixed(1)}`;
      // A moment alone is a dot.
      if (!joins) path += "h0.01";
      before = moment.at;
    }
    svg.append(shape("path", { class: `line ${line.className}`, d: path }));
  }
  place.replaceChildren(svg);
}

// The chart in words.
function said(title, moments, lines, unit) {
  if (moments.length === 0) return `${title}: nothing is known yet`;
  const parts = lines.map((line) => {
    const values = moments.map(line.of);
    return `${line.name}: last ${unit(values.at(-1))}, at most ${unit(values.reduce((a, b) => Math.max(a, b), 0))}`;
  });
  return `${title}. ${parts.join("; ")}`;
}

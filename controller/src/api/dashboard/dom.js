// Elements: found by id, made with text only, and rows that stay where they are while their cells change, so that nothing moves
// under the reader, and focus and selection stay.

export const byId = (id) => document.getElementById(id);

// An element with properties, and with texts or elements in it. Texts never become markup.
export function make(name, properties = {}, ...content) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("data-") || key.startsWith("aria-") || key === "scope" || key === "colspan") element.setAttribute(key, value);
    else if (value !== undefined) element[key] = value;
  }
  element.append(...content.flat().filter((part) => part !== null && part !== undefined));
  return element;
}

export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// What a cell holds: a text, or elements, with a class.
function fill(cell, { text, nodes, className = "" }) {
  if (cell.className !== className) cell.className = className;
  if (nodes === undefined) return write(cell, text ?? "");
  const wanted = nodes.filter((node) => node !== null && node !== undefined);
  const same = cell.childNodes.length === wanted.length
    && wanted.every((node, place) => cell.childNodes[place].isEqualNode(typeof node === "string" ? document.createTextNode(node) : node));
  if (!same) cell.replaceChildren(...wanted);
}

// Shows `rows`, each { key, cells }, in `body`; the first cell heads its row. Without any, one row says `nothing`.
export function rows(body, rows, columns, nothing) {
  const before = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  const shown = rows.length > 0 ? rows : [{ key: "", nothing }];
  shown.forEach((wanted, place) => {
    const key = String(wanted.key);
    let row = before.get(key);
    before.delete(key);
    if (row === undefined) {
      row = make("tr", { "data-key": key });
      if (wanted.nothing === undefined) {
        row.append(make("th", { scope: "row" }), ...Array.from({ length: columns - 1 }, () => make("td")));
      } else {
        row.append(make("td", { colspan: columns, className: "nothing" }));
      }
    }
    if (wanted.nothing === undefined) wanted.cells.forEach((cell, column) => fill(row.cells[column], cell));
    else write(row.cells[0], wanted.nothing);
    if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] ?? null);
  });
  for (const row of before.values()) row.remove();
}

export const text = (value, className) => ({ text: value === null || value === undefined ? "" : String(value), className });
export const number = (value) => text(value, "number");

// A bar that says in words what it shows.
export function bar(ratio, state) {
  const percent = `${Math.round(ratio * 100)} %`;
  const meter = make("meter", { min: 0, max: 1, low: 0.7, high: 0.85, optimum: 0, value: ratio, "aria-label": `saturation ${percent}` });
  return [meter, make("span", { className: { ok: "", warn: "warn", crit: "bad" }[state] ?? "" }, percent)];
}

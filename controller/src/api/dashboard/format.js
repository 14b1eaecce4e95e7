// Numbers and times as people read them.

const UNITS = ["", "k", "M", "G", "T", "P"];

// A number with the prefix of its size: three digits that count.
export function scaled(count, unit) {
  let place = 0;
  while (count >= 999.5 && place < UNITS.length - 1) {
    count /= 1000;
    place += 1;
  }
  const digits = place === 0 || count >= 100 ? Math.round(count) : count.toFixed(count >= 10 ? 1 : 2);
  return `${digits} ${UNITS[place]}${unit}`.trim();
}

export const bytes = (count) => scaled(count, "B");
export const bits = (bytesPerSecond) => scaled(bytesPerSecond * 8, "bit/s");
export const count = (number) => number.toLocaleString("en");

export const of = (gauge) => (gauge.limit === null ? count(gauge.used) : `${count(gauge.used)} / ${count(gauge.limit)}`);
export const orNothing = (value, shown) => (value === null || value === undefined ? "–" : shown(value));

// Seconds in the unit of their size.
export function duration(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

export const now = () => Date.now() / 1000;
export const ago = (unix) => `${duration(Math.max(0, now() - unix))} ago`;

// A moment from now on: in how long, or that it has passed.
export const until = (unix) => (unix > now() ? `in ${duration(unix - now())}` : "has passed");

export const clock = (unix) => new Date(unix * 1000).toLocaleTimeString("en-GB");
export const day = (unix) => new Date(unix * 1000).toISOString().slice(0, 16).replace("T", " ");

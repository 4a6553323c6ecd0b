/** Numbers and times as they are written on the operator's screens. Pure. */

const UNITS = ["bytes", "kB", "MB", "GB", "TB"];

/** Writes a whole number with its thousands apart. */
export const count = (value) => Math.round(value).toLocaleString("en");

/** Writes a number of things: "1 answer", "2,000 answers". */
export const many = (value, one, several = `${one}s`) => `${count(value)} ${value === 1 ? one : several}`;

/** Writes a number of bytes. */
export function size(bytes) {
  let unit = 0;
  let value = bytes;
  for (; value >= 1000 && unit < UNITS.length - 1; unit += 1) value /= 1000;
  return `${unit === 0 ? value : value.toPrecision(3)} ${UNITS[unit]}`;
}

/** Writes a time that is given in seconds since 1970, in the reader's own zone. */
export function day(seconds) {
  const at = new Date(seconds * 1000);
  const pad = (value) => String(value).padStart(2, "0");
  const date = [at.getFullYear(), pad(at.getMonth() + 1), pad(at.getDate())].join("-");
  return `${date} ${pad(at.getHours())}:${pad(at.getMinutes())}`;
}

/** Writes a number with about three digits; a dash where there is none. */
export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "—";
  if (value === 0) return "0";
  return Math.abs(value) >= 100 ? count(value) : String(Number(value.toPrecision(3)));
}

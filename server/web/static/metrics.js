/** The server's metrics: read from Prometheus' text, and what follows from two readings. Pure. */

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** Returns the samples of a text, by their names. */
export function parsed(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const match = LINE.exec(line);
    if (!match) continue;
    const [, name, labels = "", value] = match;
    if (!found.has(name)) found.set(name, []);
    found.get(name).push({ labels: labelsOf(labels), value: value === "+Inf" ? Infinity : Number(value) });
  }
  return found;
}

function labelsOf(text) {
  const unescaped = (value) => value.replace(/\\(.)/g, (_, char) => (char === "n" ? "\n" : char));
  return Object.fromEntries([...text.matchAll(LABEL)].map(([, name, value]) => [name, unescaped(value)]));
}

const isAmong = (sample, wanted) => Object.entries(wanted).every(([name, value]) => sample.labels[name] === value);

/** Returns the sum of the samples by this name with these labels; null if there is none. */
export function total(metrics, name, wanted = {}) {
  const samples = (metrics.get(name) ?? []).filter((sample) => isAmong(sample, wanted));
  return samples.length === 0 ? null : samples.reduce((sum, { value }) => sum + value, 0);
}

/** Returns the values by this name for each value of a label. */
export function by(metrics, name, label) {
  const sums = new Map();
  for (const { labels, value } of metrics.get(name) ?? []) sums.set(labels[label], (sums.get(labels[label]) ?? 0) + value);
  return sums;
}

/** Returns the mean of a histogram; null while it is empty. */
export function mean(metrics, name, wanted = {}) {
  const number = total(metrics, `${name}_count`, wanted);
  return number ? total(metrics, `${name}_sum`, wanted) / number : null;
}

function buckets(metrics, name, wanted) {
  const sums = new Map();
  for (const sample of metrics.get(`${name}_bucket`) ?? []) {
    if (!isAmong(sample, wanted)) continue;
    const end = sample.labels.le === "+Inf" ? Infinity : Number(sample.labels.le);
    sums.set(end, (sums.get(end) ?? 0) + sample.value);
  }
  return sums;
}

/**
 * Returns a quantile of a histogram, of what it counted after `before` (null: ever); null while that is nothing.
 *
 * As Prometheus has it: linear within a bucket. Beyond the last border it is that border, and more is not known.
 */
export function quantile(metrics, before, name, wanted, share) {
  const [now, then] = [buckets(metrics, name, wanted), before ? buckets(before, name, wanted) : new Map()];
  const ends = [...now.keys()].sort((one, other) => one - other);
  const counts = ends.map((end) => now.get(end) - (then.get(end) ?? 0));
  const all = counts.at(-1);
  if (!(all > 0)) return null;
  const at = counts.findIndex((number) => number >= share * all);
  const [low, below] = at === 0 ? [0, 0] : [ends[at - 1], counts[at - 1]];
  if (ends[at] === Infinity) return low;
  return low + (ends[at] - low) * (share * all - below) / (counts[at] - below);
}

/** Returns how much a counter grew a second from one reading to the next; null after a restart, which begins at 0. */
export function rate(now, before, name, wanted = {}) {
  if (!before) return null;
  const [end, start] = [total(now.metrics, name, wanted) ?? 0, total(before.metrics, name, wanted) ?? 0];
  const seconds = (now.at - before.at) / 1000;
  return seconds > 0 && end >= start ? (end - start) / seconds : null;
}

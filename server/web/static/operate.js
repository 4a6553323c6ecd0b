/** The server at work: queue, K, times, engines, waves, store; from its own metrics, every few seconds. */
import { html, useState } from "./vendor.js";
import { Failure } from "./asking.js";
import { count, short, size } from "./figures.js";
import { by, mean, quantile, total } from "./metrics.js";
import { useReadings } from "./readings.js";

const PHASES = {
  queue: "Waiting in the queue",
  first_candidate: "Until the first candidate",
  generate: "Until the last candidate",
  score_tail: "Until the last score",
  total: "All of it",
};
const REDUCED = {
  none: "as requested", load: "the server was busy", deadline: "the deadline had passed in the queue",
  temperature: "at temperature 0 all would be equal",
};
const STOPPED = {
  reward: "R_c was reached", gain: "the next were expected to gain too little", candidates: "all K were drawn",
  load: "the server was busy", deadline: "of the deadline",
};
const CHARTS = [
  ["queued", "Requests queued", count],
  ["inFlight", "Candidates in flight", count],
  ["requests", "Answers a second", short],
  ["candidates", "Candidates a second", short],
  ["cpu", "CPU of the server, cores", short],
];
const ROWS = 20;

/** The view. */
export function Operate({ apiKey, lock, isShown }) {
  const [isPaused, setPaused] = useState(false);
  const { readings, error } = useReadings({ apiKey, lock, isOn: isShown && !isPaused });
  const now = readings.at(-1);
  return html`
    <div class="row">
      <h2>Operate</h2>
      ${now && html`<${State} now=${now} />`}
      <button type="button" class="plain" aria-pressed=${isPaused ? "true" : "false"}
        onClick=${() => setPaused(!isPaused)}>Pause</button>
    </div>
    <${Failure} error=${error} />
    ${!now && !error && html`<p class="quiet">Reading …</p>`}
    ${now && html`
      <${Charts} readings=${readings} />
      <div class="columns even">
        <${Latency} now=${now} first=${readings[0]} />
        <${Kept} now=${now} />
        <${Engines} metrics=${now.metrics} />
        <${Waves} metrics=${now.metrics} />
        <${Ends} metrics=${now.metrics} />
        <${Store} now=${now} />
      </div>`}`;
}

function State({ now }) {
  const isReady = now.ready === "ready";
  return html`
    <p class="state">
      <span class=${`chip ${isReady ? "good" : "warn"}`} role="status">${isReady ? "ready" : now.ready}</span>
      <span class="quiet"> read ${new Date(now.at).toLocaleTimeString("en-GB")}, every 3 s</span>
    </p>`;
}

function Charts({ readings }) {
  const last = readings.at(-1);
  return html`
    <div class="tiles">
      ${CHARTS.map(([field, title, written]) => html`
        <div class="tile" key=${field}>
          <p class="quiet">${title}</p>
          <p class="figure" data-figure=${field}>${last[field] === null ? "—" : written(last[field])}</p>
          <${Sparkline} values=${readings.map((each) => each[field])} />
        </div>`)}
    </div>
    <details class="numbers">
      <summary>The charts as a table</summary>
      <${Scroll} label="The newest readings">
        <table>
          <thead><tr><th scope="col">Read</th>${CHARTS.map(([field, title]) => html`<th scope="col" key=${field}>${title}</th>`)}</tr></thead>
          <tbody>
            ${readings.slice(-ROWS).reverse().map((each) => html`
              <tr key=${each.at}>
                <th scope="row">${new Date(each.at).toLocaleTimeString("en-GB")}</th>
                ${CHARTS.map(([field, , written]) => html`<td key=${field}>${each[field] === null ? "—" : written(each[field])}</td>`)}
              </tr>`)}
          </tbody>
        </table>
      <//>
    </details>`;
}

/** A line of the values, from 0 to the highest; hidden from readers of the table. */
function Sparkline({ values }) {
  const known = values.map((value, at) => [at, value]).filter(([, value]) => value !== null);
  const most = Math.max(1e-9, ...known.map(([, value]) => value));
  const wide = Math.max(1, values.length - 1);
  const points = known.map(([at, value]) => `${(100 * at / wide).toFixed(2)},${(23 - 22 * value / most).toFixed(2)}`);
  return html`
    <svg class="sparkline" viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true">
      <path class="floor" d="M0 23H100" vector-effect="non-scaling-stroke" />
      <polyline points=${points.join(" ")} vector-effect="non-scaling-stroke" />
    </svg>`;
}

function Scroll({ label, children }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${label}>${children}</div>`;
}

/** A table whose rows begin with a heading; nothing stands under "—". */
function Table({ title, id, heads, rows, empty, children }) {
  return html`
    <section class="panel" aria-labelledby=${id}>
      <h3 id=${id}>${title}</h3>
      ${rows.length === 0 ? html`<p class="quiet">${empty}</p>` : html`
        <${Scroll} label=${`${title}: table`}>
          <table>
            <thead><tr>${heads.map((head) => html`<th scope="col" key=${head}>${head}</th>`)}</tr></thead>
            <tbody>
              ${rows.map(([head, ...cells]) => html`
                <tr key=${head}><th scope="row">${head}</th>${cells.map((cell, at) => html`<td key=${at}>${cell}</td>`)}</tr>`)}
            </tbody>
          </table>
        <//>`}
      ${children}
    </section>`;
}

const ms = (seconds) => (seconds === null ? "—" : short(1000 * seconds));

function Latency({ now, first }) {
  const name = "winnow_selection_seconds";
  const of = (before, phase, share) => ms(quantile(now.metrics, before, name, { phase }, share));
  const number = total(now.metrics, `${name}_count`, { phase: "total" });
  const rows = number ? Object.keys(PHASES).map((phase) => [
    PHASES[phase], of(first.metrics, phase, 0.5), of(first.metrics, phase, 0.95), of(null, phase, 0.5), of(null, phase, 0.95),
  ]) : [];
  const minutes = Math.round((now.at - first.at) / 60_000);
  const since = minutes < 1 ? "this minute" : `last ${minutes} min`;
  return html`
    <${Table} title="Times by phase, ms" id="latency-heading" rows=${rows} empty="No answer yet."
      heads=${["Phase", `p50, ${since}`, `p95, ${since}`, "p50, ever", "p95, ever"]}>
      <p class="quiet">Estimated from the buckets of a histogram. “Ever” is since the server's start.</p>
    <//>`;
}

function Kept({ now: { metrics } }) {
  const name = "winnow_selection_candidates";
  const counts = by(metrics, `${name}_count`, "reduced_by");
  const rows = [...counts].map(([why, number]) => [
    REDUCED[why] ?? why, count(number), short(mean(metrics, name, { reduced_by: why })),
  ]);
  return html`
    <${Table} title="K, and why it was reduced" id="reduced-heading" rows=${rows} empty="No answer yet."
      heads=${["K is", "Answers", "Mean K"]} />`;
}

function Engines({ metrics }) {
  const up = by(metrics, "winnow_reward_model_up", "model");
  const retries = by(metrics, "winnow_reward_model_retries_total", "model");
  const rows = [...by(metrics, "winnow_engine_requests", "engine")].map(([engine, unfinished]) => [
    engine, count(unfinished), up.has(engine) ? (up.get(engine) ? "up" : "down") : "here",
    retries.has(engine) ? count(retries.get(engine)) : "—",
  ]);
  return html`
    <${Table} title="Engines" id="engines-heading" rows=${rows} empty="None."
      heads=${["Engine", "Unfinished requests", "Is", "Sent again"]}>
      <p class="quiet">The server's process holds ${size(total(metrics, "process_resident_memory_bytes") ?? 0)} of memory,${" "}
        without its engines.</p>
    <//>`;
}

function Waves({ metrics }) {
  const name = "winnow_adaptive_candidates";
  const saved = total(metrics, `${name}_saved_total`) ?? 0;
  const drawn = total(metrics, `${name}_sum`) ?? 0;
  const rows = [...by(metrics, `${name}_count`, "stopped_by")].map(([why, number]) => [
    STOPPED[why] ?? why, count(number), short(mean(metrics, name, { stopped_by: why })),
  ]);
  return html`
    <${Table} title="Candidates in waves" id="waves-heading" rows=${rows} empty="No answer was drawn in waves."
      heads=${["Stopped because", "Answers", "Mean k"]}>
      ${rows.length > 0 && html`
        <p>${count(saved)} of ${count(saved + drawn)} candidates were not needed
          (${short(100 * saved / Math.max(1, saved + drawn))} %), in ${short(mean(metrics, "winnow_adaptive_waves"))} waves${" "}
          on average.</p>`}
    <//>`;
}

const ENDS = [
  ["Scored", "winnow_candidates_total"],
  ["Aborted", "winnow_candidates_aborted_total"],
  ["Failed", "winnow_candidates_failed_total"],
  ["Cancelled", "winnow_candidates_cancelled_total"],
];

function Ends({ metrics }) {
  const refused = (metrics.get("winnow_requests_total") ?? []).filter(({ labels }) => labels.status >= "400");
  const rows = [
    ...ENDS.map(([title, name]) => [`Candidates: ${title.toLowerCase()}`, count(total(metrics, name) ?? 0)]),
    ["Selections without a safe candidate", count(total(metrics, "winnow_selections_all_unsafe_total") ?? 0)],
    ["Requests with an error", count(refused.reduce((sum, { value }) => sum + value, 0))],
  ];
  return html`
    <${Table} title="Since the server's start" id="ends-heading" rows=${rows} empty="" heads=${["What", "Number"]} />`;
}

function Store({ now: { metrics, version } }) {
  const { recording } = version;
  if (!recording) {
    return html`
      <section class="panel" aria-labelledby="store-heading">
        <h3 id="store-heading">Store</h3>
        <p class="quiet">This server keeps nothing.</p>
      </section>`;
  }
  const rows = [
    ["State", recording.fault ? `takes nothing: ${recording.fault}` : "takes answers"],
    ["Rule", `${recording.record}, for ${recording.retention_days ? `${short(recording.retention_days)} days` : "good"}`],
    ["Recorded", count(total(metrics, "winnow_store_written_total") ?? 0)],
    ["Waiting", count(total(metrics, "winnow_store_waiting") ?? 0)],
    ...[...by(metrics, "winnow_store_dropped_total", "reason")].map(([why, number]) => [`Not recorded: ${why}`, count(number)]),
  ];
  return html`<${Table} title="Store" id="store-heading" rows=${rows} empty="" heads=${["What", "Is"]} />`;
}

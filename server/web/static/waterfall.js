/** Where the time went: the phases that the server measured, and the candidates as this page saw them end. */
import { html } from "./vendor.js";
import { phases } from "./selection.js";

const NAMES = {
  queue: "Waiting in the queue",
  first: "Sampling, until the first candidate",
  rest: "Sampling, until the last one",
  tail: "Scoring, until the last score",
};
const THICK = { most: 10, least: 3, all: 200 };

const ms = (value) => value.toFixed(1);
const maybe = (value) => (value === null ? "—" : ms(value));

/** Returns when the nth candidate was sampled and scored, by the page's clock. */
export function ends(steps) {
  const seen = (field, count) => steps.find((step) => step[field] >= count)?.ms ?? null;
  return Array.from({ length: steps.at(-1)?.finished ?? 0 }, (_, at) => ({
    count: at + 1, sampled: seen("finished", at + 1), scored: seen("scored", at + 1),
  }));
}

/** The chart and its twin, a table. */
export function Waterfall({ run, level }) {
  const timings = run.report.timings_ms;
  const rows = phases(timings);
  const candidates = ends(run.steps);
  const end = Math.max(timings.total, ...candidates.map(({ scored, sampled }) => scored ?? sampled), 1e-3);
  const Heading = `h${level}`;
  return html`
    <${Heading}>Time: ${ms(timings.total)} ms<//>
    <figure class="waterfall" aria-hidden="true">
      ${rows.map(({ name, start, ms: lasts }) => html`
        <div class="phase-row" key=${name}>
          <span>${NAMES[name]}</span>
          <svg viewBox="0 0 1000 10" preserveAspectRatio="none">
            <rect class="track" width="1000" height="10" />
            <${Bar} kind="phase" from=${start / end} to=${(start + lasts) / end} y=${0} height=${10} />
          </svg>
          <span class="value">${ms(lasts)}</span>
        </div>`)}
      ${candidates.length > 0 && html`
        <div class="phase-row tall">
          <span>Candidates, as this page saw them <span class="key sampled"></span> sampled and${" "}
            <span class="key scored"></span> scored</span>
          <${Candidates} candidates=${candidates} end=${end} />
          <span class="value"></span>
        </div>`}
    </figure>
    <details class="numbers">
      <summary>The times as a table</summary>
      <div class="scroll" tabindex="0" role="region" aria-label="Times">
        <${Phases} rows=${rows} total=${timings.total} />
        ${candidates.length > 0 && html`<${Ends} candidates=${candidates} />`}
      </div>
    </details>`;
}

/** A bar from one share of the width to another, wide enough to be seen. */
function Bar({ kind, from, to, y, height }) {
  const width = Math.max(4, 1000 * (to - from));
  return html`<rect class=${kind} x=${Math.min(1000 * from, 1000 - width)} y=${y} width=${width} height=${height} />`;
}

function Candidates({ candidates, end }) {
  const thick = Math.max(THICK.least, Math.min(THICK.most, THICK.all / candidates.length));
  const height = candidates.length * (thick + 1);
  return html`
    <svg viewBox=${`0 0 1000 ${height}`} preserveAspectRatio="none" height=${height}>
      ${candidates.map(({ sampled, scored }, at) => {
        const place = { y: at * (thick + 1), height: thick };
        return html`
          <${Bar} kind="sampled" from=${0} to=${sampled / end} ...${place} />
          ${scored !== null && html`<${Bar} kind="scored" from=${sampled / end} to=${scored / end} ...${place} />`}`;
      })}
    </svg>`;
}

function Phases({ rows, total }) {
  return html`
    <table>
      <thead><tr><th scope="col">Phase</th><th scope="col">starts, ms</th><th scope="col">lasts, ms</th></tr></thead>
      <tbody>
        ${rows.map((row) => html`
          <tr><th scope="row">${NAMES[row.name]}</th><td>${ms(row.start)}</td><td>${ms(row.ms)}</td></tr>`)}
        <tr><th scope="row">All of it</th><td>0.0</td><td>${ms(total)}</td></tr>
      </tbody>
    </table>`;
}

function Ends({ candidates }) {
  return html`
    <table>
      <thead>
        <tr>
          <th scope="col">Candidate, as seen here</th><th scope="col">sampled, ms</th><th scope="col">scored, ms</th>
        </tr>
      </thead>
      <tbody>
        ${candidates.map(({ count, sampled, scored }) => html`
          <tr><th scope="row">${count}.</th><td>${ms(sampled)}</td><td>${maybe(scored)}</td></tr>`)}
      </tbody>
    </table>`;
}

/** Figures with their 95 % intervals: a dot and its whisker in each row, and the same as a table. */
import { html } from "./vendor.js";
import { visible } from "./text.js";

export const share = (value) => `${(100 * value).toFixed(0)} %`;
export const coefficient = (value) => value.toFixed(2);

const between = (value, [from, to]) => Math.min(100, Math.max(0, (100 * (value - from)) / (to - from)));

/**
 * Draws `rows`, each with a label and an estimate of value, low, high and n, null if there is none.
 *
 * `mark` is a value to compare with, `band` a range; a row may have its own mark, and `base` ones are drawn hollow.
 */
export function Dots({ rows, span = [0, 1], format = share, mark = null, band = null, caption, name }) {
  const at = (value) => `${between(value, span)}%`;
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => span[0] + part * (span[1] - span[0]));
  return html`
    <figure class="dots" aria-hidden="true">
      ${rows.map(({ label, estimate, base, mark: own = mark }) => html`
        <div class=${`dot-row ${base ? "base" : ""}`} key=${label}>
          <span dir="auto">${visible(label)}</span>
          <svg>
            ${band && html`
              <rect class="band" x=${at(band[0])} height="100%"
                width=${`${between(band[1], span) - between(band[0], span)}%`} />`}
            <line x1="0" x2="100%" y1="50%" y2="50%" />
            ${own !== null && html`<line class="mark" x1=${at(own)} x2=${at(own)} y1="0" y2="100%" />`}
            ${estimate && html`
              <line class="whisker" x1=${at(estimate.low)} x2=${at(estimate.high)} y1="50%" y2="50%" />
              <circle cx=${at(estimate.value)} cy="50%" r="5" />`}
          </svg>
          <span class="value">${said(estimate, format)}</span>
        </div>`)}
      <div class="dot-row">
        <span></span>
        <svg>
          ${ticks.map((tick, number) => html`
            <text x=${at(tick)} y="60%" text-anchor=${["start", "middle", "middle", "middle", "end"][number]}>${format(tick)}</text>`)}
        </svg>
        <span></span>
      </div>
      ${caption && html`<figcaption class="quiet">${caption}</figcaption>`}
    </figure>
    <details class="numbers">
      <summary>${name} as a table</summary>
      <div class="scroll" tabindex="0" role="region" aria-label=${name}>
        <${Table} rows=${rows} format=${format} />
      </div>
    </details>`;
}

const said = (estimate, format) => (estimate
  ? `${format(estimate.value)} (${format(estimate.low)} to ${format(estimate.high)}) of ${estimate.n.toLocaleString("en")}`
  : "not enough yet");

function Table({ rows, format }) {
  const hasMarks = rows.some(({ mark }) => mark !== undefined);
  return html`
    <table>
      <thead>
        <tr>
          <td></td><th scope="col">value</th><th scope="col">low</th><th scope="col">high</th><th scope="col">n</th>
          ${hasMarks && html`<th scope="col">expected</th>`}
        </tr>
      </thead>
      <tbody>
        ${rows.map(({ label, estimate, mark }) => html`
          <tr key=${label}>
            <th scope="row" dir="auto">${visible(label)}</th>
            ${["value", "low", "high"].map((part) => html`<td>${estimate ? format(estimate[part]) : "—"}</td>`)}
            <td>${estimate ? estimate.n : "—"}</td>
            ${hasMarks && html`<td>${mark === undefined ? "—" : format(mark)}</td>`}
          </tr>`)}
      </tbody>
    </table>`;
}

/** Agreement: do annotators choose alike, and does the side on which an answer stands sway them? */
import { html } from "./vendor.js";
import { Dots, coefficient } from "./dots.js";
import { Waiting, useLoaded } from "./loaded.js";
import { visible } from "./text.js";

const PAPER = [0.37, 0.55];
const estimate = (found) => found && { ...found, value: found.coefficient };
const lowest = (rows) => Math.min(0, ...rows.map((row) => row.estimate?.low ?? 0)) < 0 ? -1 : 0;

/** The view. */
export function Agreement(props) {
  const found = useLoaded("v1/annotation/agreement", props);
  return html`
    <section aria-labelledby="agreement-heading">
      <div class="row">
        <h2 id="agreement-heading">Agreement</h2>
        <button type="button" onClick=${found.load}>Look again</button>
      </div>
      <p class="quiet">Gwet's coefficients with 95 % intervals: 1 is agreement on every pair, 0 is as by chance. They need
        pairs with two annotators: make batches with an overlap of 2 or more.</p>
      <${Waiting} found=${found} />
      ${found.data && html`<${Report} report=${found.data} />`}
    </section>`;
}

function Report({ report: { all, batches, annotators, position } }) {
  if (annotators.length === 0) return html`<p class="note">Nothing is annotated yet. Batches are made under Batches.</p>`;
  const rows = (kind) => [["All", all], ...batches.map((batch) => [batch.name, batch])]
    .map(([label, one]) => ({ label, estimate: estimate(one[kind]) }));
  const people = (kind) => annotators.map(({ name, agreement }) => ({ label: name, estimate: estimate(agreement[kind]) }));
  const left = position.value === null ? null : { ...position, n: position.left + position.right };
  return html`
    <h3>Which is better: AC2, by batch</h3>
    <${Coefficients} rows=${rows("choice")} band=${PAPER} name="AC2 by batch"
      caption="Shaded: 0.37 to 0.55, what the Llama 2 paper reports of its annotators." />
    <h3>Which is better: AC2 with the others, by annotator</h3>
    <${Coefficients} rows=${people("choice")} band=${PAPER} name="AC2 by annotator" />
    <h3>Safe or unsafe: AC1, by batch</h3>
    <${Coefficients} rows=${rows("safety")} name="AC1 by batch" />
    <h3>Safe or unsafe: AC1 with the others, by annotator</h3>
    <${Coefficients} rows=${people("safety")} name="AC1 by annotator" />
    <h3>How often the left answer was chosen</h3>
    <${Dots} mark=${0.5} name="Choices of the left answer"
      rows=${[{ label: "All", estimate: left }, ...annotators.map((one) => ({ label: one.name, estimate: one.left_share }))]}
      caption="Sides are drawn by lot. An interval that does not reach the line at 50 % is a habit, not a judgment." />
    <h3>Annotators</h3>
    <${Annotators} annotators=${annotators} />`;
}

function Coefficients({ rows, ...others }) {
  return html`<${Dots} rows=${rows} span=${[lowest(rows), 1]} format=${coefficient} ...${others} />`;
}

function Annotators({ annotators }) {
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label="Annotators">
      <table>
        <thead>
          <tr>
            <th scope="col">name</th><th scope="col">annotations</th><th scope="col">skipped</th>
            <th scope="col">median time, s</th>
          </tr>
        </thead>
        <tbody>
          ${annotators.map(({ name, annotations, skipped, median_active_s: median }) => html`
            <tr key=${name}>
              <th scope="row">${visible(name)}</th><td>${annotations.toLocaleString("en")}</td><td>${skipped}</td>
              <td>${median === null ? "—" : median.toFixed(0)}</td>
            </tr>`)}
        </tbody>
      </table>
    </div>`;
}

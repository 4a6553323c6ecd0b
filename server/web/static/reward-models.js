/** Reward models: how often each prefers the answer that people chose. */
import { html } from "./vendor.js";
import { Dots } from "./dots.js";
import { Waiting, useLoaded } from "./loaded.js";
import { GATE } from "./selection.js";
import { Said, visible } from "./text.js";

const KINDS = { safety: ["Safety", "R_s"], helpfulness: ["Helpfulness", "R_h"], combined: ["Combined", "R_c"] };

/** The view. */
export function RewardModels(props) {
  const found = useLoaded("v1/annotation/reward-models", props);
  const models = found.data?.models ?? [];
  return html`
    <section aria-labelledby="reward-models-heading">
      <div class="row">
        <h2 id="reward-models-heading">Reward models</h2>
        <button type="button" onClick=${found.load}>Look again</button>
      </div>
      <p class="quiet">Accuracy: how often a model gives the answer that people chose the higher score, with 95 % intervals.
        It should beat what a fixed rule reaches on the same pairs, and be highest where people are surest.</p>
      <${Waiting} found=${found} />
      ${found.data && models.length === 0 && html`
        <p class="note">No pair that a reward model has scored is annotated yet. Batches are made under Batches.</p>`}
      ${models.map((model) => html`<${Model} key=${`${model.kind} ${model.fingerprint} ${model.origins}`} model=${model} />`)}
    </section>`;
}

function Model({ model }) {
  const { kind, name, fingerprint, origins, pairs, accuracy, by_rating: ratings, longer, left, calibration, gate } = model;
  const [title, letter] = KINDS[kind] ?? [kind, ""];
  const rows = [
    { label: "All", estimate: accuracy },
    ...ratings.map((one) => ({ label: `Chosen as ${one.rating}`, estimate: one })),
    { label: "Rule: the longer answer", estimate: longer, base: true },
    { label: "Rule: the left answer", estimate: left, base: true },
  ];
  const about = `${title}: ${visible(name)}`;
  return html`
    <section class="side" aria-label=${about}>
      <h3>${title} <${Said} text=${letter} /> <span class="quiet">${visible(name)}${fingerprint && ` · ${fingerprint.slice(0, 12)}`}</span></h3>
      <p class="quiet">${accuracy.n.toLocaleString("en")} annotations of ${pairs.toLocaleString("en")} pairs,
        answers of origin ${origins.join(", ")}</p>
      <${Dots} rows=${rows} mark=${0.5} name=${`Accuracy of ${about}`}
        caption="The line at 50 % is choosing by lot; hollow dots are fixed rules on the same pairs." />
      ${calibration && html`<${Calibration} bins=${calibration} about=${about} />`}
      ${gate && html`<${Gate} gate=${gate} about=${about} />`}
    </section>`;
}

function Calibration({ bins, about }) {
  const rows = bins.map(({ low, high, predicted, chosen }) => ({
    label: `σ(margin) ${low.toFixed(1)} to ${high.toFixed(1)}`, estimate: chosen, mark: predicted,
  }));
  return html`
    <details class="numbers">
      <summary>Calibration: how often people agreed, by how sure the model was</summary>
      <${Dots} rows=${rows} name=${`Calibration of ${about}`}
        caption="The line in each row is what the model expected; the interval should reach it." />
    </details>`;
}

function Gate({ gate: { precision, recall }, about }) {
  const rows = [
    { label: "Precision: the flagged that are unsafe", estimate: precision },
    { label: "Recall: the unsafe that are flagged", estimate: recall },
  ];
  return html`
    <h4>The gate: R<sub>s</sub> below ${GATE} against people's “unsafe”</h4>
    <${Dots} rows=${rows} name=${`The gate of ${about}`} caption="Flagged: by the gate. Unsafe: as people said." />`;
}

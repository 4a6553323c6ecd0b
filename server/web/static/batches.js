/** Batches: pairs of recorded answers for annotators, how they are chosen, and how far they are. */
import { html, useRef, useState } from "./vendor.js";
import { Dialog } from "./dialog.js";
import { Guidelines } from "./editor.js";
import { Waiting, useAction, useLoaded } from "./loaded.js";
import { anySeed } from "./requests.js";
import { RunError } from "./status.js";
import { Said, visible } from "./text.js";

const POLICIES = [
  ["margin", "Small margin", "The two best candidates that R_c can hardly tell apart: where people's word adds most."],
  ["disagree", "Disagreement", "R_s and R_h order the two oppositely: how to weigh safety against help."],
  ["top", "Winner and runner-up", "The answer that was returned against the next one: was it the right choice?"],
  ["random", "At random", "Any two candidates of an answer: for figures that hold for all answers."],
  ["temperatures", "Two temperatures", "Answers to one prompt at different temperatures, as in the Llama 2 paper."],
  ["models", "Two models", "Answers to one prompt by different models: which model do people prefer?"],
];
const NAMES = { ...Object.fromEntries(POLICIES), given: "Named pairs" };

const date = (seconds) => new Date(1000 * seconds).toISOString().slice(0, 10);
const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/** The view. */
export function Batches(props) {
  const found = useLoaded("v1/annotation/batches", props);
  const [said, setSaid] = useState("");
  const batches = found.data?.data ?? [];
  const isFirst = useRef(null);
  if (found.data) isFirst.current ??= batches.length === 0;
  const made = (batch, asked) => {
    const fewer = batch.pairs < asked ? `; ${asked.toLocaleString("en")} were asked for, and there are no more` : "";
    setSaid(`Made “${batch.name}” with ${count(batch.pairs, "pair")}${fewer}.`);
    found.load();
  };
  return html`
    <section aria-labelledby="batches-heading">
      <div class="row">
        <h2 id="batches-heading">Batches</h2>
        <button type="button" onClick=${found.load}>Look again</button>
      </div>
      <p class="quiet">A batch is a set of pairs of recorded answers. Annotators say which one is better, without its scores
        or its model.</p>
      <p class=${said ? "notice" : "unseen"} role="status">${said}</p>
      <${Waiting} found=${found} />
      ${found.data && html`
        <details class="numbers" open=${isFirst.current}>
          <summary><strong>New batch</strong></summary>
          <${NewBatch} ...${props} made=${made} />
        </details>
        <ul class="cards">
          ${batches.map((batch) => html`<${Batch} key=${batch.id} batch=${batch} ...${props} closed=${(now) => {
            setSaid(`Closed “${now.name}”.`);
            found.load();
          }} />`)}
        </ul>
        <${Guidelines} ...${props} />`}
    </section>`;
}

function NewBatch({ made, ...access }) {
  const [wish, setWish] = useState({ name: `Pairs of ${date(Date.now() / 1000)}`, policy: "margin", pairs: "100", overlap: "2" });
  const { isBusy, error, run } = useAction(access);
  const set = (part) => setWish((now) => ({ ...now, ...part }));
  const submit = async (event) => {
    event.preventDefault();
    const asked = Number(wish.pairs);
    const body = { ...wish, pairs: asked, overlap: Number(wish.overlap), seed: Number(anySeed()) };
    const batch = await run("v1/annotation/batches", body);
    if (batch) made(batch, asked);
  };
  return html`
    <form class="composer" onSubmit=${submit}>
      <div class="grid">
        <div class="field">
          <label for="batch-name">Name</label>
          <input id="batch-name" required maxlength="200" value=${wish.name} onInput=${(event) => set({ name: event.target.value })} />
        </div>
        <div class="field">
          <label for="batch-pairs">Pairs at most</label>
          <input id="batch-pairs" type="number" required min="1" max="100000" value=${wish.pairs}
            onInput=${(event) => set({ pairs: event.target.value })} />
        </div>
        <div class="field">
          <label for="batch-overlap">Annotators for each pair</label>
          <input id="batch-overlap" type="number" required min="1" max="20" value=${wish.overlap} aria-describedby="overlap-note"
            onInput=${(event) => set({ overlap: event.target.value })} />
          <small id="overlap-note" class="quiet">Agreement needs two or more.</small>
        </div>
      </div>
      <fieldset class="policies">
        <legend>Which pairs</legend>
        ${POLICIES.map(([policy, label, sentence]) => html`
          <label class="policy" key=${policy}>
            <input type="radio" name="policy" value=${policy} checked=${wish.policy === policy} onChange=${() => set({ policy })} />
            <span><strong>${label}.</strong> <${Said} text=${sentence} /></span>
          </label>`)}
      </fieldset>
      ${error && html`<div role="alert"><${RunError} error=${error} /></div>`}
      <div class="row">
        <button type="submit" class="main" aria-disabled=${isBusy ? "true" : undefined}>
          ${isBusy ? "Choosing pairs …" : "Make the batch"}
        </button>
      </div>
    </form>`;
}

function Batch({ batch, closed, ...access }) {
  const [isAsked, setAsked] = useState(false);
  const { error, run } = useAction(access);
  const { id, name, policy, overlap, created, pairs, wanted, annotations, annotators, skipped, leased, guidelines } = batch;
  const facts = [
    `${annotations.toLocaleString("en")} of ${count(wanted, "annotation")}`, `${count(pairs, "pair")} × ${overlap}`,
    count(annotators, "annotator"), skipped > 0 && `${skipped} skipped`, leased > 0 && `${leased} being looked at`,
    `guidelines ${guidelines}`, `made on ${date(created)}`,
  ];
  const close = async () => {
    setAsked(false);
    const now = await run(`v1/annotation/batches/${id}/close`, {});
    if (!now) return;
    document.getElementById(id).focus();
    closed(now);
  };
  return html`
    <li class="card batch" aria-labelledby=${id}>
      <div class="card-head">
        <h3 id=${id} tabindex="-1" dir="auto">${visible(name)}</h3>
        <span class="chip">${NAMES[policy] ?? policy}</span>
        <span class="chip">${batch.closed === null ? "open" : `closed on ${date(batch.closed)}`}</span>
      </div>
      <progress max=${wanted} value=${annotations} aria-label=${`Annotations of ${name}`}></progress>
      <p class="quiet">${facts.filter(Boolean).join(" · ")}</p>
      ${error && html`<div role="alert"><${RunError} error=${error} /></div>`}
      ${batch.closed === null && html`
        <button type="button" class="plain" onClick=${() => setAsked(true)}>Close<span class="unseen"> ${name}</span></button>`}
      ${isAsked && html`
        <${Dialog} title="Close this batch?" close=${() => setAsked(false)} cancel="Leave it open">
          <p>Annotators get no more pairs of “${visible(name)}”. What they have chosen stays. It cannot be opened again.</p>
          <button type="button" class="main" onClick=${close}>Close the batch</button>
        <//>`}
    </li>`;
}

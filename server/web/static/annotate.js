/** Annotating: which of two answers is better, and is each safe? Nothing here tells who wrote them or how they scored. */
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor.js";
import { useAnnotating } from "./annotating.js";
import { useGuidelines } from "./guidelines.js";
import { useKeys } from "./keys.js";
import { Pair } from "./pair.js";
import { RunError } from "./status.js";
import { visible } from "./text.js";

/** The view. */
export function Annotate({ caller, apiKey, lock, keysOn, isShown }) {
  const work = useAnnotating({ apiKey, lock, isShown });
  const { is, pair, notice, error } = work;
  const guidelines = useGuidelines({ version: isShown && pair?.guidelines, name: caller.name, apiKey });
  const view = useRef(null);
  const [isSeen, setSeen] = useState(false);
  useEffect(() => { setSeen(false); }, [pair?.lease]);
  useLayoutEffect(() => {
    // The focus was in the pair before, which is gone: it goes to the head of this one.
    if (isShown && document.activeElement === document.body) view.current.querySelector("h2").focus();
  }, [is, pair?.lease]);
  return html`
    <section class="annotate" ref=${view} aria-labelledby="annotate-heading">
      <${Head} work=${work} openGuidelines=${guidelines.open} />
      <p class=${notice ? "notice" : "unseen"} role="status">${notice ?? ""}</p>
      ${is === "loading" && html`<p class="quiet">Asking for a pair …</p>`}
      ${is === "failed" && !pair && html`<${Failed} error=${error} retry=${work.retry} />`}
      ${is === "none" && html`<${None} work=${work} keysOn=${keysOn} />`}
      ${pair && is !== "none" && html`
        <${Pair} key=${pair.lease} work=${work} keysOn=${keysOn} isShown=${isShown} openGuidelines=${guidelines.open}
          question=${{ isSeen, setSeen }} />`}
      ${isShown && guidelines.dialog}
    </section>`;
}

function Head({ work: { pair, mine, batch, take, is }, openGuidelines }) {
  const own = mine?.batches.find(({ id }) => id === pair?.batch);
  const all = own && own.annotated + own.remaining;
  const title = pair?.earlier ? "Your last choice, to revise" : own ? `Pair ${own.annotated + 1} of ${all}` : "Annotate";
  return html`
    <div class="row head">
      <h2 id="annotate-heading" tabindex="-1">${title}</h2>
      ${own && html`
        <div class="progress">
          <progress max=${all} value=${own.annotated} aria-label="Pairs annotated"></progress>
          <p class="quiet" dir="auto">${own.annotated} of ${all} done in “${visible(own.name)}”</p>
        </div>`}
      ${mine?.batches.length > 1 && html`
        <label for="annotate-batch">Batch</label>
        <select id="annotate-batch" class="short" value=${batch} onChange=${(event) => take(event.target.value)}>
          <option value="">all of them</option>
          ${mine.batches.map(({ id, name, remaining }) => html`
            <option value=${id}>${visible(name)} (${remaining} left)</option>`)}
        </select>`}
      ${pair && html`
        <button type="button" onClick=${openGuidelines}>Guidelines <kbd aria-hidden="true">g</kbd></button>`}
    </div>
    ${is === "choosing" && !pair.earlier && own?.annotated === 0 && html`
      <p class="note">Read the conversation and both answers to its last message. Then say which answer is better, and
        for each whether it is safe. Who wrote them is not told.</p>`}`;
}

function Failed({ error, retry }) {
  if (error.code === "not_stored") {
    return html`<p class="note">This server keeps no answers, so there is none to annotate. Its operator can start it with
      --store and --record.</p>`;
  }
  return html`
    <div role="alert">
      <${RunError} error=${error} />
      <button type="button" onClick=${retry}>Try again</button>
    </div>`;
}

function None({ work: { mine, look, undo }, keysOn }) {
  useKeys(keysOn, { u: ({ repeat }) => { if (!repeat) undo(); } });
  const said = mine.annotations === 0
    ? "Nothing waits for you. Pairs appear here when an operator makes a batch."
    : `That was the last one: thank you. You have annotated ${mine.annotations.toLocaleString("en")} in all.`;
  return html`
    <p class="note">${said}</p>
    <div class="row">
      <button type="button" class="main" onClick=${look}>Look again</button>
      ${mine.annotations > 0 && html`
        <button type="button" onClick=${undo}>Undo <kbd aria-hidden="true">u</kbd></button>`}
    </div>`;
}

/** The state of a request that has no answer: how far it is, or why it failed. */
import { html } from "./vendor.js";
import { reward } from "./selection.js";
import { Said } from "./text.js";

/** How many candidates are finished and scored, and the best reward so far. */
export function Running({ run }) {
  const { finished = 0, scored = 0, candidates = null, best_so_far: best = null } = run.progress ?? {};
  if (candidates === null) return html`<p class="quiet">Waiting for the first candidate …</p>`;
  return html`
    <div class="progress">
      <progress max=${candidates} value=${scored} aria-label="Candidates scored"></progress>
      <p class="quiet">
        ${finished} of ${candidates} sampled, ${scored} scored
        ${best !== null && html` · best <${Said} text=${`R_c ${reward(best)}`} />`}
      </p>
    </div>`;
}

/** Why a request failed, in the server's words. */
export function RunError({ error }) {
  return html`
    <div class="note warning">
      <p>${error.message}</p>
      ${error.retryAfter && html`<p class="quiet">There may be room in ${error.retryAfter} s.</p>`}
    </div>`;
}

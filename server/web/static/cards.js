/** The candidates, best first: each with its scores, the branch that decided, and its text. */
import { html, useRef } from "./vendor.js";
import { Picking, usePicks } from "./sending.js";
import { useKeys } from "./keys.js";
import { GATE, isUnsafe, reward } from "./selection.js";
import { CandidateText, Said } from "./text.js";

const BRANCHES = {
  safety_prompt: "safety prompt: R_c = R_s",
  unsafe: "unsafe: R_c = R_s",
  helpful: "safe: R_c = R_h",
};
const REASONS = {
  accept_reward: "another was good enough",
  deadline: "the deadline had passed",
  early_rejection: "it scored low on its first part",
  adaptive: "more candidates were not worth it",
};

/** The cards in `order`; j and k go through them. */
export function Cards({ report, order, keysOn, level, name, sendPair }) {
  const picks = usePicks(sendPair);
  const list = useRef(null);
  const step = (by) => () => {
    const cards = [...list.current.querySelectorAll(".card")];
    const at = cards.indexOf(document.activeElement?.closest(".card"));
    const next = cards[at < 0 ? 0 : Math.min(cards.length - 1, Math.max(0, at + by))];
    next?.focus();
    next?.scrollIntoView({ block: "nearest" });
  };
  useKeys(keysOn, { j: step(1), k: step(-1) });
  const Heading = `h${level}`;
  return html`
    <${Heading}>${order.length} candidates, best first<//>
    ${sendPair && order.length > 1 && html`<${Picking} picks=${picks} />`}
    <ol class="cards" ref=${list}>
      ${order.map((candidate, rank) => html`
        <${Card} key=${candidate.index} candidate=${candidate} rank=${rank} level=${level + 1} name=${name}
          isReturned=${candidate.index === report.winner} picks=${sendPair && order.length > 1 ? picks : null} />`)}
    </ol>
    <${Missing} report=${report} />`;
}

function Card({ candidate, rank, level, name, isReturned, picks }) {
  const id = `${name}-card-${candidate.index}`;
  const Heading = `h${level}`;
  const unsafe = isUnsafe(candidate);
  const kinds = [rank === 0 && "first", unsafe && "gated"].filter(Boolean).join(" ");
  return html`
    <li class=${`card ${kinds}`} tabindex="-1" aria-labelledby=${id} data-index=${candidate.index}>
      <div class="card-head">
        <${Heading} id=${id}>
          <span class="number">#${candidate.index}</span> ${rank === 0 ? "Winner" : `Rank ${rank + 1}`}
        <//>
        ${isReturned && rank !== 0 && html`<span class="chip">returned</span>`}
        <span class=${`chip ${unsafe ? "warn" : ""}`}>
          <${Said} text=${BRANCHES[candidate.branch] ?? candidate.branch} />
        </span>
        ${unsafe && candidate.branch !== "unsafe" && html`<span class="chip warn">unsafe</span>`}
        ${candidate.empty && html`<span class="chip">no text</span>`}
        <span class="quiet">${candidate.tokens} tokens${candidate.finish_reason === "length" ? ", cut off" : ""}</span>
      </div>
      <dl class="scores">
        <${Score} label="R_s" value=${candidate.safety} gate=${true} />
        <${Score} label="R_h" value=${candidate.helpfulness} />
        <${Score} label="R_c" value=${candidate.combined} strong=${true} />
      </dl>
      <${CandidateText} text=${candidate.text} isUnsafe=${unsafe} />
      ${picks && html`
        <label class="check">
          <input type="checkbox" checked=${picks.chosen.includes(candidate.index)} onChange=${() => picks.turn(candidate.index)} />
          <span>One of a pair to annotate<span class="unseen">: #${candidate.index}</span></span>
        </label>`}
    </li>`;
}

function Score({ label, value, gate = false, strong = false }) {
  const isNone = value === null || value === undefined;
  const kind = [strong && "strong", gate && value < GATE && "low"].filter(Boolean).join(" ");
  return html`
    <div class=${`score ${kind}`} data-score=${label} data-value=${value}>
      <dt><${Said} text=${label} /></dt>
      <dd>${isNone ? html`<span class="quiet">not needed</span>` : reward(value)}</dd>
      <dd aria-hidden="true">
        <svg viewBox="0 0 100 10" preserveAspectRatio="none">
          <rect class="track" y="2" width="100" height="6" />
          ${!isNone && html`<rect class="fill" y="2" width=${100 * value} height="6" />`}
          ${gate && html`<rect class="gate" x=${100 * GATE} width="1.2" height="10" />`}
        </svg>
      </dd>
    </div>`;
}

/** The candidates without a rank. */
function Missing({ report }) {
  const aborted = report.aborted ?? [];
  if (aborted.length + report.failed.length === 0) return null;
  return html`
    <details class="quiet">
      <summary>${aborted.length} aborted, ${report.failed.length} failed</summary>
      <ul>
        ${aborted.map(({ index, reason, tokens }) => html`
          <li>#${index} was aborted after ${tokens} tokens: ${REASONS[reason] ?? reason}.</li>`)}
        ${report.failed.map(({ index, reason }) => html`<li>#${index} failed: ${reason}.</li>`)}
      </ul>
    </details>`;
}

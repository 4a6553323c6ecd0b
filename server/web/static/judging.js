/** The controls of a judgment: safe or unsafe, which is better and by how much, flags and a comment. */
import { html } from "./vendor.js";
import { Text } from "./text.js";

const DEGREES = ["significantly better", "better", "slightly better", "negligibly better, or unsure"];
const FLAGS = [
  ["unclear_prompt", "The prompt is unclear"],
  ["both_bad", "Both are bad"],
  ["same", "They say the same"],
  ["personal_data", "Has personal data"],
];
const COMMENT_MOST = 2000;

/** One of the two answers, in bounds, and whether it is safe. */
export function Answer({ side, text, isSafe, set, keys }) {
  const kinds = [[true, "Safe"], [false, "Unsafe"]];
  return html`
    <section class="side" aria-labelledby=${`answer-${side}`}>
      <h3 id=${`answer-${side}`}>Answer ${side}</h3>
      <div class="answer-text" tabindex="0" role="region" aria-label=${`Text of ${side}`}><${Text} text=${text} /></div>
      <fieldset class="picks">
        <legend>Is ${side} safe?</legend>
        ${kinds.map(([value, label], at) => html`
          <label class="pick" key=${label}>
            <input type="radio" name=${`safe-${side}`} checked=${isSafe === value} onChange=${() => set(value)} />
            <span><span class="unseen">${side} is </span>${label}</span> <kbd aria-hidden="true">${keys[at]}</kbd>
          </label>`)}
      </fieldset>
    </section>`;
}

/** Eight choices in a row, from one side to the other. */
export function Scale({ choice, set }) {
  const sides = [["A", DEGREES.map((degree, at) => [at + 1, degree])],
    ["B", DEGREES.map((degree, at) => [8 - at, degree]).reverse()]];
  return html`
    <fieldset class="scale">
      <legend>Which answer is better?</legend>
      ${sides.map(([side, picks]) => html`
        <div class="half" key=${side}>
          <p aria-hidden="true"><strong>${side}</strong> is</p>
          <div class="picks">
            ${picks.map(([number, degree]) => html`
              <label class="pick" key=${number}>
                <input type="radio" name="choice" value=${number} checked=${choice === number}
                  onChange=${() => set(number)} />
                <kbd aria-hidden="true">${number}</kbd>
                <span><span class="unseen">${side} is </span>${degree}</span>
              </label>`)}
          </div>
        </div>`)}
    </fieldset>`;
}

/** What else there is to say about a pair. */
export function Notes({ draft, choose, comment, isFixed }) {
  const turn = (flag) => choose({
    flags: draft.flags.includes(flag) ? draft.flags.filter((each) => each !== flag) : [...draft.flags, flag],
  });
  return html`
    <div class="columns even">
      <fieldset class="switch">
        <legend>If it applies</legend>
        ${FLAGS.map(([flag, label]) => html`
          <label key=${flag}>
            <input type="checkbox" checked=${draft.flags.includes(flag)} onChange=${() => turn(flag)} />
            <span>${label}</span>
          </label>`)}
      </fieldset>
      <div class="field">
        <label for="comment">
          Comment <kbd aria-hidden="true">m</kbd> <span class="quiet">if there is something to say</span>
        </label>
        <textarea id="comment" ref=${comment} rows="1" maxlength=${COMMENT_MOST} readonly=${isFixed} value=${draft.comment}
          onInput=${(event) => choose({ comment: event.target.value })}></textarea>
      </div>
    </div>`;
}

/** Two requests that differ in one setting, with one seed, one after the other. */
import { html, useEffect, useRef, useState } from "./vendor.js";
import { Consent } from "./consent.js";
import { Dial, Dials } from "./dials.js";
import { isSubmit, useKeys } from "./keys.js";
import { DIALS, anySeed, bodyOf } from "./requests.js";
import { perform, prepared, winnerOf } from "./runs.js";
import { isUnsafe, reward } from "./selection.js";
import { RunError, Running } from "./status.js";
import { CandidateText, Said, Text } from "./text.js";
import { Why } from "./why.js";

const COMPARED = DIALS.filter(({ name }) => name !== "seed");
const SIDES = ["A", "B"];

/** Runs both sides in turn; the second waits for the first, so that neither slows the other. */
function useSides({ server, apiKey, lock, isKept }) {
  const [sides, setSides] = useState(null);
  const running = useRef(null);
  const compare = async (prompt, dials, setting, values) => {
    if (running.current) return;
    const seed = dials.seed || anySeed();
    const controller = running.current = new AbortController();
    const messages = [{ role: "user", content: prompt }];
    const body = (value) => bodyOf(server.model, messages, { ...dials, seed, [setting.name]: value }, isKept);
    const runs = values.map((value) => prepared(body(value)));
    setSides({ setting, values, seed, runs: [runs[0], { ...runs[1], status: "waiting" }] });
    const put = (at) => (run) => setSides((now) => ({ ...now, runs: now.runs.with(at, run) }));
    try {
      for (const [at, run] of runs.entries()) {
        put(at)(run);
        const options = { key: apiKey.current, signal: controller.signal, update: put(at) };
        const ended = controller.signal.aborted ? null : await perform(run, options);
        if (!ended) put(at)({ ...run, status: "stopped" });
        if (ended?.error?.status === 401) { put(1)({ ...runs[1], status: "stopped" }); lock(); break; }
      }
    } finally {
      running.current = null;
    }
  };
  return { sides, compare, stop: () => running.current?.abort() };
}

/** The view. */
export function Compare({ server, apiKey, lock, dials, setDials, consent, keysOn, isShown, isAway }) {
  const { sides, compare, stop } = useSides({ server, apiKey, lock, isKept: consent.isKept });
  const [prompt, setPrompt] = useState("");
  const [setting, setSetting] = useState(COMPARED[0]);
  const [values, setValues] = useState(["4", "16"]);
  const field = useRef(null);
  const isRunning = sides?.runs.some(({ status }) => ["running", "waiting"].includes(status)) ?? false;
  const halt = () => {
    if (!isRunning) return false;
    stop();
    field.current.focus();
    return true;
  };
  useKeys(keysOn, { Escape: halt });
  const submit = () => { if (!isRunning && prompt.trim()) compare(prompt, dials, setting, values); };
  const choose = (name) => {
    setSetting(COMPARED.find((each) => each.name === name));
    setValues(["", ""]);
  };
  if (isAway) return null;
  return html`
    <section aria-labelledby="compare-heading">
      <h2 id="compare-heading">Compare two settings</h2>
      <p class="quiet">The same message is asked twice, one after the other, with one seed; a single setting differs. So
        candidate #k of both draws the same random numbers.</p>
      <form class="composer" onSubmit=${(event) => { event.preventDefault(); submit(); }}>
        <label for="compare-prompt">Message</label>
        <textarea id="compare-prompt" ref=${field} rows="2" value=${prompt}
          onInput=${(event) => setPrompt(event.target.value)}
          onKeyDown=${(event) => { if (isSubmit(event)) { event.preventDefault(); submit(); } }}></textarea>
        <div class="grid">
          <div class="field setting">
            <label for="compare-setting">Setting</label>
            <select id="compare-setting" value=${setting.name} onChange=${(event) => choose(event.target.value)}>
              ${COMPARED.map(({ name, label }) => html`<option value=${name}>${label}</option>`)}
            </select>
          </div>
          ${SIDES.map((side, at) => html`
            <div class="field" key=${side}>
              <label for=${`compare-${side}`}>${side}: <${Said} text=${setting.label} /></label>
              <${Dial} dial=${setting} id=${`compare-${side}`} value=${values[at]} describe=${false}
                set=${(value) => setValues((now) => now.with(at, value))} />
            </div>`)}
        </div>
        <div class="row">
          <button type="submit" class="main" aria-disabled=${isRunning || !prompt.trim() ? "true" : undefined}>
            Compare
          </button>
          ${isRunning && html`<button type="button" onClick=${halt}>Stop</button>`}
        </div>
      </form>
      <${Consent} consent=${consent} server=${server} />
      <${Dials} prefix="compare-" dials=${dials} setDials=${setDials} without=${setting.name} />
      ${sides && html`<${Result} sides=${sides} server=${server} />`}
      <p class="unseen" role="status">${isShown && sides && (isRunning ? "Comparing." : "Both sides have ended.")}</p>
    </section>`;
}

const said = (setting, value) => (value === "" ? `${setting.label}: server's default` : `${setting.label}: ${value}`);

function Result({ sides, server }) {
  const { setting, values, runs, seed } = sides;
  return html`
    <h3>Seed ${seed}</h3>
    ${runs.every(({ status }) => status === "done") && html`<${Table} sides=${sides} />`}
    <div class="columns even">
      ${runs.map((run, at) => html`
        <section class="side" key=${run.id} aria-labelledby=${`side-${SIDES[at]}`}>
          <h4 id=${`side-${SIDES[at]}`}>${SIDES[at]} · <${Said} text=${said(setting, values[at])} /></h4>
          <${Side} run=${run} server=${server} side=${SIDES[at]} />
        </section>`)}
    </div>`;
}

function Side({ run, server, side }) {
  if (run.status === "waiting") return html`<p class="quiet">Waits for A.</p>`;
  if (run.status === "running") return html`<${Running} run=${run} />`;
  if (run.status === "stopped") return html`<p class="quiet">Stopped.</p>`;
  if (run.status === "failed") return html`<${RunError} error=${run.error} />`;
  const winner = winnerOf(run);
  return html`
    ${winner
      ? html`<${CandidateText} text=${run.text} isUnsafe=${isUnsafe(winner)} />`
      : html`<${Text} text=${run.text} />`}
    <details class="numbers">
      <summary>Why this answer</summary>
      <${Why} run=${run} server=${server} keysOn=${false} level=${5} name=${`side-${side}`} />
    </details>`;
}

const MEASURES = [
  ["R_c of the answer", (run) => reward(best(run).combined)],
  ["R_s of the answer", (run) => reward(best(run).safety)],
  ["R_h of the answer", (run) => reward(best(run).helpfulness)],
  ["Mean R_c of the candidates", (run) => reward(mean(run.report.scored.map(({ combined }) => combined)))],
  ["Candidates scored", (run) => run.report.scored.length],
  ["Tokens sampled", (run) => run.usage?.completion_tokens ?? "—"],
  ["Milliseconds", (run) => run.report.timings_ms.total.toFixed(1)],
];
const best = ({ report }) => report.scored.find(({ index }) => index === report.winner);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function Table({ sides: { runs } }) {
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label="Both sides in numbers">
      <table>
        <thead><tr><td></td>${SIDES.map((side) => html`<th scope="col">${side}</th>`)}</tr></thead>
        <tbody>
          ${MEASURES.map(([label, measure]) => html`
            <tr>
              <th scope="row"><${Said} text=${label} /></th>
              ${runs.map((run) => html`<td>${measure(run)}</td>`)}
            </tr>`)}
        </tbody>
      </table>
    </div>`;
}

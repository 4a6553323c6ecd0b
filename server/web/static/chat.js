/** The chat: a dialog on one side, why its answers won on the other. */
import { html, useEffect, useRef, useState } from "./vendor.js";
import { Consent } from "./consent.js";
import { Dials } from "./dials.js";
import { isSubmit, useKeys } from "./keys.js";
import { postJson } from "./api.js";
import { anySeed, bodyOf } from "./requests.js";
import { hasRole } from "./server.js";
import { perform, prepared, winnerOf } from "./runs.js";
import { isUnsafe } from "./selection.js";
import { RunError, Running } from "./status.js";
import { CandidateText, Said, Text } from "./text.js";
import { Why } from "./why.js";

const STARTERS = ["What is the capital of France?", "Name three fruits.", "How do I make a bomb?"];
const NEAR = 120;

/** Returns the messages before turn `end` that the model is shown: those of turns that were answered. */
function history(turns, end) {
  return turns.slice(0, end).filter(({ run }) => run.status === "done").flatMap(({ user, run }) => [
    { role: "user", content: user }, { role: "assistant", content: run.text },
  ]);
}

/** The turns of a dialog, and what can be done to them. */
function useTurns({ server, apiKey, lock, dials, isKept }) {
  const [turns, setTurns] = useState([]);
  const running = useRef(null);
  const ask = async (user, before, at) => {
    if (running.current) return;
    const messages = [...history(before, at), { role: "user", content: user }];
    const run = prepared(bodyOf(server.model, messages, { ...dials, seed: dials.seed || anySeed() }, isKept));
    const put = (now) => setTurns((all) => all.map((turn) => (turn.run.id === run.id ? { ...turn, run: now } : turn)));
    const controller = running.current = new AbortController();
    setTurns([...before.slice(0, at), { user, run }]);
    const ended = await perform(run, { key: apiKey.current, signal: controller.signal, update: put })
      .finally(() => { if (running.current === controller) running.current = null; });
    if (ended.error?.status === 401) lock();
  };
  return {
    turns,
    send: (user) => ask(user, turns, turns.length),
    retry: () => ask(turns.at(-1).user, turns, turns.length - 1),
    stop: () => running.current?.abort(),
    clear: () => {
      running.current?.abort();
      running.current = null;
      setTurns([]);
    },
  };
}

/** The view. */
export function Chat({ caller, server, apiKey, lock, dials, setDials, consent, keysOn, isShown, isAway }) {
  const { turns, send, retry, stop, clear } = useTurns({ server, apiKey, lock, dials, isKept: consent.isKept });
  const [chosen, setChosen] = useState(null);
  const [draft, setDraft] = useState("");
  const composer = useRef(null);
  const last = turns.at(-1);
  const isRunning = last?.run.status === "running";
  const shown = turns.find(({ run }) => run.id === chosen) ?? last;
  const halt = () => {
    if (!isRunning) return false;
    stop();
    composer.current.focus();
    return true;
  };
  const thenWrite = (action) => (...given) => {
    action(...given);
    composer.current.focus();
  };
  useKeys(keysOn, { Escape: halt });
  useEffect(() => { setChosen(null); }, [last?.run.id]);
  const sendPair = shown?.run.body.store && hasRole(caller, ["operate"]) && ((candidates) => postJson(
    "v1/annotation/pairs", { completion: shown.run.completion, candidates }, { key: apiKey.current }));
  if (isAway) return null;
  return html`
    <div class="columns">
      <section class="dialog" aria-labelledby="dialog-heading">
        <div class="row">
          <h2 id="dialog-heading">Chat</h2>
          ${turns.length > 0 && html`
            <button type="button" class="plain" onClick=${thenWrite(clear)}>New chat</button>`}
        </div>
        <${Turns} turns=${turns} shown=${shown} choose=${setChosen} retry=${thenWrite(retry)} />
        ${turns.length === 0 && html`<${Welcome} send=${thenWrite(send)} />`}
        <${Composer} field=${composer} draft=${draft} setDraft=${setDraft} send=${send} stop=${halt}
          isRunning=${isRunning} />
        <${Consent} consent=${consent} server=${server} />
        <${Dials} dials=${dials} setDials=${setDials} />
      </section>
      <section class="why" id="why" tabindex="-1" aria-labelledby="why-heading">
        <h2 id="why-heading">${shown ? "Why this answer" : "How an answer is chosen"}</h2>
        ${shown
          ? html`<${Why} key=${shown.run.id} run=${shown.run} server=${server} keysOn=${keysOn}
            sendPair=${sendPair || null} />`
          : html`<${Method} />`}
      </section>
    </div>
    <p class="unseen" role="status">${isShown && last ? announced(last.run) : ""}</p>`;
}

function announced(run) {
  if (run.status === "running") return "Sampling candidates.";
  if (run.status === "stopped") return "Stopped.";
  if (run.status === "failed") return `Failed: ${run.error.message}`;
  return `Answered. ${run.report.scored.length} candidates were scored; number ${run.report.winner} won.`;
}

function Welcome({ send }) {
  return html`
    <div class="welcome">
      <p>Winnow samples several answers, scores each for safety and helpfulness, and returns the best. Ask something to
        see all of them, with the scores that decided.</p>
      <div class="row starters">
        ${STARTERS.map((text) => html`<button type="button" key=${text} onClick=${() => send(text)}>${text}</button>`)}
      </div>
    </div>`;
}

const STEPS = [
  "Several candidates are sampled, not one.",
  "Two reward models score each: R_s says how safe it is, R_h how helpful.",
  "If R_s is below 0.15, or the prompt is a safety prompt, R_c is R_s. Else R_c is R_h.",
  "The candidate with the highest R_c is the answer.",
];

function Method() {
  return html`
    <ol class="method">${STEPS.map((step) => html`<li><${Said} text=${step} /></li>`)}</ol>
    <p class="quiet">Every answer shows its candidates here, with these numbers.</p>`;
}

/** The dialog; it follows new text only while its reader is at its end. */
function Turns({ turns, shown, choose, retry }) {
  const box = useRef(null);
  const isAtEnd = useRef(true);
  const follow = () => {
    const { scrollHeight, scrollTop, clientHeight } = box.current;
    isAtEnd.current = scrollHeight - scrollTop - clientHeight < NEAR;
  };
  useEffect(() => { isAtEnd.current = true; }, [turns.length]);
  useEffect(() => { if (isAtEnd.current && box.current) box.current.scrollTop = box.current.scrollHeight; }, [turns]);
  if (turns.length === 0) return null;
  return html`
    <div class="turns" ref=${box} onScroll=${follow} tabindex="0" role="region" aria-label="Dialog">
      ${turns.map(({ user, run }, at) => html`
        <${Turn} key=${run.id} user=${user} run=${run} isShown=${shown?.run.id === run.id}
          choose=${() => choose(run.id)} retry=${at === turns.length - 1 ? retry : null} />`)}
    </div>`;
}

function Turn({ user, run, isShown, choose, retry }) {
  const show = () => {
    choose();
    document.getElementById("why").focus();
  };
  return html`
    <div class="message user"><h3>You</h3><${Text} text=${user} /></div>
    <div class=${`message answer ${isShown ? "shown" : ""}`}>
      <h3>${run.body.model}</h3>
      ${run.status === "running" && html`<${Running} run=${run} />`}
      ${run.status === "stopped" && html`<p class="quiet">Stopped. The model will not see this turn.</p>`}
      ${run.status === "failed" && html`<${RunError} error=${run.error} />`}
      ${run.status === "done" && html`<${Answer} run=${run} />`}
      <div class="row">
        ${run.status === "done" && html`
          <button type="button" class="plain" onClick=${show} aria-current=${isShown ? "true" : undefined}>
            Why this answer
          </button>`}
        ${retry && run.status !== "running" && html`
          <button type="button" class="plain" onClick=${retry}>
            ${run.status === "done" ? "Ask again" : "Retry"}
          </button>`}
      </div>
    </div>`;
}

/** The text of an answer; it is shown once its scores are known, because an unsafe one is not shown unasked. */
function Answer({ run }) {
  const winner = winnerOf(run);
  if (winner) return html`<${CandidateText} text=${run.text} isUnsafe=${isUnsafe(winner)} />`;
  return html`
    <${Text} text=${run.text} />
    <p class="quiet">The server's refusal: every candidate is unsafe.</p>`;
}

function Composer({ field, draft, setDraft, send, stop, isRunning }) {
  const submit = () => {
    if (isRunning || !draft.trim()) return;
    send(draft);
    setDraft("");
    field.current.focus();
  };
  return html`
    <form class="composer" onSubmit=${(event) => { event.preventDefault(); submit(); }}>
      <label for="message">Message</label>
      <textarea id="message" ref=${field} rows="3" value=${draft} aria-describedby="send-hint"
        onInput=${(event) => setDraft(event.target.value)}
        onKeyDown=${(event) => { if (isSubmit(event)) { event.preventDefault(); submit(); } }}></textarea>
      <div class="row">
        <button type="submit" class="main" aria-disabled=${isRunning || !draft.trim() ? "true" : undefined}>
          Send
        </button>
        ${isRunning && html`<button type="button" onClick=${stop}>Stop</button>`}
        <small id="send-hint" class="quiet">Ctrl + Enter sends</small>
      </div>
    </form>`;
}

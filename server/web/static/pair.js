/** One pair: the conversation, two answers, and what an annotator says of them. */
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor.js";
import { isQuestioned, missing } from "./annotating.js";
import { Dialog } from "./dialog.js";
import { Answer, Notes, Scale } from "./judging.js";
import { isSubmit, useKeys } from "./keys.js";
import { RunError } from "./status.js";
import { Text } from "./text.js";

const SPEAKERS = { user: "User", assistant: "Assistant", system: "System message" };

/** The pair that is being judged. `question` keeps whether the annotator was asked about an unsafe choice. */
export function Pair({ work, keysOn, isShown, openGuidelines, question }) {
  const { pair, draft, is, choose, skip, undo, resend, retry } = work;
  const [isAsked, setAsked] = useState(false);
  const [isTold, setTold] = useState(false);
  const comment = useRef(null);
  const isFixed = is !== "choosing";
  const lacks = missing(draft);
  const once = (action) => ({ repeat }) => { if (!repeat && !isFixed) action(); };
  const submit = () => {
    if (is === "unsent") resend();
    if (isFixed) return;
    if (lacks.length > 0) setTold(true);
    else if (isQuestioned(draft) && !question.isSeen) setAsked(true);
    else work.submit();
  };
  const confirm = () => {
    question.setSeen(true);
    work.submit();
  };
  const passing = once(() => { if (!pair.earlier) skip(); });
  usePairKeys(keysOn, { choose, skip: passing, undo: once(undo), comment, openGuidelines });
  useSubmit(isShown, submit);
  return html`
    <${Conversation} messages=${pair.messages} />
    <form onSubmit=${(event) => { event.preventDefault(); submit(); }} onClick=${isFixed ? hold : undefined}>
      <div class="columns even">
        <${Answer} side="A" text=${pair.left.text} isSafe=${draft.left_safe} keys=${["q", "w"]}
          set=${(left_safe) => choose({ left_safe })} />
        <${Answer} side="B" text=${pair.right.text} isSafe=${draft.right_safe} keys=${["o", "p"]}
          set=${(right_safe) => choose({ right_safe })} />
      </div>
      <${Scale} choice=${draft.choice} set=${(choice) => choose({ choice })} />
      <${Notes} draft=${draft} choose=${choose} comment=${comment} isFixed=${isFixed} />
      ${work.error && html`<div role="alert"><${Unsent} work=${work} resend=${resend} retry=${retry} /></div>`}
      <${Actions} work=${work} lacks=${lacks} isTold=${isTold} skip=${once(skip)} undo=${once(undo)} />
    </form>
    ${isAsked && html`<${Question} chosen=${draft.choice < 5 ? "A" : "B"} confirm=${confirm}
      close=${() => setAsked(false)} />`}`;
}

function Actions({ work: { is, pair }, lacks, isTold, skip, undo }) {
  const isChoosing = is === "choosing";
  return html`
    <div class="row">
      <button type="submit" class="main" aria-disabled=${!isChoosing || lacks.length > 0 ? "true" : undefined}
        aria-describedby="lacks">
        ${is === "sending" ? "Sending …" : "Submit, next"} <kbd aria-hidden="true">Ctrl + Enter</kbd>
      </button>
      ${!pair.earlier && html`<button type="button" onClick=${skip}>Skip <kbd aria-hidden="true">x</kbd></button>`}
      <button type="button" onClick=${undo}>Undo <kbd aria-hidden="true">u</kbd></button>
      <small id="lacks" class=${isTold && lacks.length > 0 ? "error" : "quiet"} role="status">
        ${lacks.length > 0 && isChoosing ? `Still to say: ${lacks.join(" · ")}` : ""}
      </small>
    </div>`;
}

/** The keys of a pair; skipping and undoing are not repeated while a key is held. */
function usePairKeys(keysOn, { choose, skip, undo, comment, openGuidelines }) {
  const digits = Object.fromEntries([1, 2, 3, 4, 5, 6, 7, 8].map((choice) => [choice, () => choose({ choice })]));
  const leave = () => {
    if (document.activeElement !== comment.current) return false;
    document.getElementById("annotate-heading").focus();
    return true;
  };
  useKeys(keysOn, {
    ...digits,
    q: () => choose({ left_safe: true }), w: () => choose({ left_safe: false }),
    o: () => choose({ right_safe: true }), p: () => choose({ right_safe: false }),
    m: () => comment.current.focus(), Escape: leave, g: openGuidelines, x: skip, u: undo,
  });
}

/** Keeps a choice as it is while the server has it. */
function hold(event) {
  if (event.target.matches("input")) event.preventDefault();
}

/** Calls `submit` on Ctrl+Enter wherever the focus is, except in a dialog. */
function useSubmit(isOn, submit) {
  const latest = useRef(submit);
  latest.current = submit;
  useLayoutEffect(() => {
    if (!isOn) return undefined;
    const press = (event) => {
      if (!isSubmit(event) || event.repeat || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      latest.current();
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, [isOn]);
}

/** What was said so far; its end is what was answered. */
function Conversation({ messages }) {
  const box = useRef(null);
  useEffect(() => { box.current.scrollTop = box.current.scrollHeight; }, []);
  return html`
    <div class="conversation" ref=${box} tabindex="0" role="region" aria-label="Conversation">
      ${messages.map(({ role, content }, at) => html`
        <div class=${`message ${role === "assistant" ? "answer" : "user"}`} key=${at}>
          <h3>${SPEAKERS[role] ?? role}</h3><${Text} text=${content} />
        </div>`)}
    </div>`;
}

function Unsent({ work: { is, error }, resend, retry }) {
  return html`
    <${RunError} error=${error} />
    ${is === "unsent" && html`
      <p>The server has not confirmed this choice. It is kept here; sent again, it counts once.</p>`}
    ${is !== "choosing" && html`
      <button type="button" onClick=${is === "unsent" ? resend : retry}>Try again</button>`}`;
}

/** Asks once whether an unsafe answer is meant to be the better one. */
function Question({ chosen, confirm, close }) {
  const other = chosen === "A" ? "B" : "A";
  const keep = useRef(null);
  const isMeant = useRef(false);
  useEffect(() => { keep.current.focus(); }, []);
  const end = () => {
    close();
    if (isMeant.current) confirm();
  };
  const yes = (event) => {
    isMeant.current = true;
    event.currentTarget.closest("dialog").close();
  };
  const press = (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    if (!event.repeat) yes(event);  // the key that has submitted may still be held
  };
  return html`
    <${Dialog} title="Is that meant?" close=${end} cancel="Back to the pair">
      <p>You call ${chosen} better, and say that ${chosen} is unsafe while ${other} is safe. That can be right; often it
        is a slip.</p>
      <button type="button" class="main" ref=${keep} onClick=${yes} onKeyDown=${press}>Keep it as it is</button>
    <//>`;
}

/** Keys for what has a control, too. They are off while one types or composes, and can be switched off for good. */
import { html, useLayoutEffect, useRef } from "./vendor.js";
import { Dialog } from "./dialog.js";

const STORED = "winnow.keys";
/** What the keys of a view do, for the list of them. */
export const CARD_KEYS = [["j, k", "Next, previous candidate"]];
export const CHAT_KEYS = [
  ["Ctrl + Enter", "Send the message, or run the comparison"],
  ["Esc", "Stop what is running"],
  ...CARD_KEYS,
];
export const ANNOTATE_KEYS = [
  ["1 … 8", "Which is better, from left to right"],
  ["q, w", "A is safe, A is unsafe"],
  ["o, p", "B is safe, B is unsafe"],
  ["m", "Write a comment; Esc leaves it"],
  ["Ctrl + Enter", "Submit, and on to the next pair"],
  ["x", "Skip this pair"],
  ["u", "Undo: revise your last choice"],
  ["g", "The guidelines"],
];
const EVERYWHERE = [["?", "This list"]];

/** Whether the keys are on; the browser keeps this one choice, where it may. */
export function areKeysOn() {
  try {
    return localStorage.getItem(STORED) !== "off";
  } catch {
    return true;
  }
}

/** Keeps whether the keys are on. */
export function setKeysOn(isOn) {
  try {
    localStorage.setItem(STORED, isOn ? "on" : "off");
  } catch { /* A browser that keeps nothing forgets this, too. */ }
}

const FIELDS = "input:not([type=radio], [type=checkbox]), textarea, select, [contenteditable]";
const isTyping = (target) => target.closest?.(FIELDS) !== null;

/** Calls `actions[key]` with the event when that key is pressed, Caps Lock or not; Escape also while one types. */
export function useKeys(isOn, actions) {
  const latest = useRef(actions);
  latest.current = actions;
  useLayoutEffect(() => {  // at once, so that no key is lost between what is shown and what listens
    if (!isOn) return undefined;
    const press = (event) => {
      const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.isComposing && event.keyCode !== 229;
      const action = latest.current[event.shiftKey || event.key.length > 1 ? event.key : event.key.toLowerCase()];
      if (!action || !isPlain || document.querySelector("dialog[open]")) return;
      if (isTyping(event.target) && event.key !== "Escape") return;
      if (action(event) !== false) event.preventDefault();
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, [isOn]);
}

/** Whether an event is Ctrl+Enter, or ⌘+Enter, and not the end of a composition. */
export function isSubmit(event) {
  return event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing && event.keyCode !== 229;
}

/** The list of keys, and the switch. */
export function KeySheet({ keys = [], isOn, choose, close }) {
  return html`
    <${Dialog} title="Keyboard" close=${close}>
      <table class="sheet">
        <tbody>
          ${[...keys, ...EVERYWHERE].map(([key, does]) => html`<tr><th scope="row"><kbd>${key}</kbd></th><td>${does}</td></tr>`)}
        </tbody>
      </table>
      <label class="check">
        <input type="checkbox" checked=${isOn} onChange=${(event) => choose(event.target.checked)} />
        Single keys are on
      </label>
      <p class="quiet">They do nothing while you type. Everything is a button, too.</p>
    <//>`;
}

/** Texts of models and users: text nodes only, nothing hidden in them, and no more at once than a browser likes. */
import { html, useRef, useState } from "./vendor.js";

const SHOWN = 4000;
/** Characters that cannot be seen, or that reorder others; not line feeds and tabs, nor joiners inside an emoji. */
const HIDDEN = new RegExp(
  "(?![\\n\\t\\u200d])[\\p{Cc}\\p{Cf}\\p{Zl}\\p{Zp}"
  + "\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u3164\\uffa0\\ufe00-\\ufe0e]"
  + "|(?<![\\p{Extended_Pictographic}\\ufe0f\\u{1f3fb}-\\u{1f3ff}])\\u200d|\\u200d(?!\\p{Extended_Pictographic})",
  "gu");

/** Returns `text` with a name in place of every hidden character: ⟨U+202E⟩. */
export function visible(text) {
  return text.replace(HIDDEN, (found) => `⟨U+${found.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

/** Returns the first `length` characters of `text` or one fewer: a pair of surrogates is not cut. */
export function start(text, length) {
  const isPair = /[\ud800-\udbff]/.test(text[length - 1]);
  return text.slice(0, isPair ? length - 1 : length);
}

/** A text as it is, behind a button where it is very long. */
export function Text({ text }) {
  const [isWhole, setWhole] = useState(false);
  const shown = useRef(null);
  if (!text.trim()) return html`<p class="quiet text">(no text)</p>`;
  const isLong = text.length > SHOWN && !isWhole;
  const label = `Show all ${text.length.toLocaleString("en")} characters`;
  const showAll = () => {
    setWhole(true);
    shown.current.focus();
  };
  return html`
    <p class="text" dir="auto" tabindex="-1" ref=${shown}>${visible(isLong ? `${start(text, SHOWN)}…` : text)}</p>
    ${isLong && html`<button type="button" onClick=${showAll}>${label}</button>`}`;
}

/** A sentence of the page's own, with the names of rewards as they are printed: R_s has its s below the line. */
export function Said({ text }) {
  return text.split(/(R_[shc])/).map((part) => (/^R_/.test(part) ? html`R<sub>${part[2]}</sub>` : part));
}

/** A candidate's text; that of an unsafe one is shown on demand. */
export function CandidateText({ text, isUnsafe }) {
  if (text === null || text === undefined) return html`<p class="quiet">The server did not return this text.</p>`;
  if (!isUnsafe) return html`<${Text} text=${text} />`;
  return html`
    <details class="unsafe">
      <summary>Unsafe text: show it</summary>
      <${Text} text=${text} />
    </details>`;
}

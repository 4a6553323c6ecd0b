/** A request as code to take along. */
import { html, useRef, useState } from "./vendor.js";
import { address } from "./api.js";
import { Dialog } from "./dialog.js";
import { curl, python } from "./snippets.js";

const LANGUAGES = { curl, Python: python };

/** The buttons, and the dialog that shows the code. */
export function Copy({ run, server }) {
  const [language, setLanguage] = useState(null);
  return html`
    <div class="row">
      ${Object.keys(LANGUAGES).map((name) => html`
        <button type="button" key=${name} onClick=${() => setLanguage(name)}>Copy as ${name}</button>`)}
    </div>
    ${language && html`
      <${Code} title=${`The request in ${language}`} hasKey=${server.hasKey} close=${() => setLanguage(null)}
        code=${LANGUAGES[language](run.body, address("v1/chat/completions"), server.hasKey)} />`}`;
}

function Code({ title, code, hasKey, close }) {
  const text = useRef(null);
  const [said, setSaid] = useState("");
  const copy = async () => {
    text.current.select();
    try {
      await navigator.clipboard.writeText(code);
      setSaid("Copied.");
    } catch {
      setSaid("The browser does not let this page copy: the text is selected, copy it with Ctrl + C.");
    }
  };
  return html`
    <${Dialog} title=${title} close=${close}>
      <label class="unseen" for="code">Code</label>
      <textarea id="code" ref=${text} class="code" readonly rows="16" spellcheck=${false} value=${code}></textarea>
      ${hasKey && html`<p class="quiet">It reads the key from the environment: WINNOW_API_KEY.</p>`}
      <div class="row">
        <button type="button" class="main" onClick=${copy}>Copy</button>
        <span role="status">${said}</span>
      </div>
    <//>`;
}

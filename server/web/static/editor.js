/** The newest guidelines for annotators, and a form for the next version of them. */
import { html, useRef, useState } from "./vendor.js";
import { Prose } from "./guidelines.js";
import { Waiting, useAction, useLoaded } from "./loaded.js";
import { RunError } from "./status.js";

/** The guidelines, folded away. */
export function Guidelines(access) {
  const found = useLoaded("v1/annotation/guidelines", access);
  const [text, setText] = useState(null);
  const [said, setSaid] = useState("");
  const { error, run } = useAction(access);
  const summary = useRef(null);
  const submit = async (event) => {
    event.preventDefault();
    const saved = await run("v1/annotation/guidelines", { text });
    if (!saved) return;
    summary.current.focus();
    setText(null);
    setSaid(`Version ${saved.version} holds for new batches.`);
    found.load();
  };
  if (!found.data) return html`<${Waiting} found=${found} />`;
  return html`
    <details class="numbers">
      <summary ref=${summary}><strong>Guidelines for annotators</strong> <span class="quiet">version ${found.data.version}</span></summary>
      <p class=${said ? "notice" : "unseen"} role="status">${said}</p>
      ${text === null
        ? html`
          <div class="prose" tabindex="0" role="region" aria-label="Guidelines"><${Prose} text=${found.data.text} /></div>
          <button type="button" onClick=${() => setText(found.data.text)}>Write a new version</button>`
        : html`
          <form class="composer" onSubmit=${submit}>
            <label for="guidelines-text">New version</label>
            <textarea id="guidelines-text" rows="16" maxlength="100000" required value=${text}
              onInput=${(event) => setText(event.target.value)}></textarea>
            <small class="quiet">Batches keep the version that they were made with. Each annotator is shown a version once.
              Lines in capitals are headings, those after a dash are items.</small>
            ${error && html`<div role="alert"><${RunError} error=${error} /></div>`}
            <div class="row">
              <button type="submit" class="main">Save</button>
              <button type="button" onClick=${() => { summary.current.focus(); setText(null); }}>Cancel</button>
            </div>
          </form>`}
    </details>`;
}

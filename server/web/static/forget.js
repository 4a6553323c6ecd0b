/** Forgetting a user: asked twice, since nothing brings the answers back. */
import { html, useRef, useState } from "./vendor.js";
import { postJson } from "./api.js";
import { Failure, useAsk } from "./asking.js";
import { Dialog } from "./dialog.js";
import { day, many } from "./figures.js";
import { visible } from "./text.js";

/** The form, its confirmation, and what was done. */
export function Forget({ apiKey, lock, done }) {
  const { ask, isBusy, error } = useAsk({ apiKey, lock });
  const [user, setUser] = useState("");
  const [isAsked, setAsked] = useState(false);
  const [result, setResult] = useState(null);
  const field = useRef(null);
  const forget = async () => {
    const found = await ask((options) => postJson("v1/store/forget", { user }, options));
    setAsked(false);
    if (!found) return;
    setResult({ ...found, user });
    setUser("");
    field.current?.focus();
    done();
  };
  const submit = (event) => {
    event.preventDefault();
    if (user) setAsked(true);
  };
  return html`
    <section aria-labelledby="forget-heading">
      <h3 id="forget-heading">Forget a user</h3>
      <form class="inline" onSubmit=${submit}>
        <label for="forget-user">The user or safety_identifier of their requests</label>
        <div class="row">
          <input id="forget-user" ref=${field} autocomplete="off" spellcheck=${false} value=${user}
            onInput=${(event) => setUser(event.target.value)} />
          <button type="submit" aria-disabled=${user ? undefined : "true"}>Forget …</button>
        </div>
      </form>
      <${Failure} error=${error} />
      <div role="status">${result && html`<${Done} result=${result} />`}</div>
      ${isAsked && html`
        <${Dialog} title="Forget this user?" close=${() => setAsked(false)}>
          <p>Every recorded answer to <strong>${visible(user)}</strong> is deleted for good, with its annotations: from the store, and from all${" "}
            later exports. In a large store this takes a while.</p>
          <div class="row">
            <button type="button" class="main" aria-disabled=${isBusy ? "true" : undefined} onClick=${forget}>
              ${isBusy ? "Deleting …" : "Delete for good"}
            </button>
          </div>
        <//>`}
    </section>`;
}

function Done({ result }) {
  return html`
    <div class="note">
      <p>${many(result.selections, "answer")} to ${visible(result.user)}${result.annotations > 0
        && ` and ${many(result.annotations, "annotation")}`}: deleted.</p>
      ${result.exports.length > 0 && html`
        <p>These exports still hold some. Delete them, and what was trained on them:</p>
        <ul class="plain-list">
          ${result.exports.map((one, at) => html`
            <li key=${at}>${day(one.created)}: ${one.formats.join(", ")} → ${one.path}</li>`)}
        </ul>`}
    </div>`;
}

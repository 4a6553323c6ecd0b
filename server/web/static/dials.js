/** The controls of a request's settings. */
import { html } from "./vendor.js";
import { DIALS, NO_DIALS } from "./requests.js";
import { Said } from "./text.js";

/** One setting's field; `id` is unique on the page. */
export function Dial({ dial, id, value, set, describe = true }) {
  const note = describe ? `${id}-hint` : undefined;
  const field = dial.type === "choice"
    ? html`
      <select id=${id} value=${value} aria-describedby=${note} onChange=${(event) => set(event.target.value)}>
        <option value="">server's default</option>
        ${dial.choices.map(([name, label]) => html`<option value=${name}>${label}</option>`)}
      </select>`
    : html`
      <input id=${id} type="number" inputmode="decimal" min=${dial.min} max=${dial.max} step=${dial.step} value=${value}
        placeholder=${dial.name === "seed" ? "a new one each time" : "server's default"} aria-describedby=${note}
        onInput=${(event) => set(event.target.value)} />`;
  return html`${field}${describe && html`<small id=${note} class="quiet"><${Said} text=${dial.hint} /></small>`}`;
}

/** All settings but the one named `without`, folded away until one wants them; the summary says which are set. */
export function Dials({ dials, setDials, prefix = "", without = null }) {
  const isSet = Object.keys(NO_DIALS).filter((name) => name !== without && dials[name].trim() !== "");
  const said = isSet.map((name) => (name === "system" ? "system message" : `${name} ${dials[name]}`)).join(" · ");
  return html`
    <details class="dials">
      <summary>Settings <span class="quiet">${said || "all as the server has them"}</span></summary>
      <div class="grid">
        ${DIALS.filter(({ name }) => name !== without).map((dial) => html`
          <div class="field" key=${dial.name}>
            <label for=${`${prefix}dial-${dial.name}`}><${Said} text=${dial.label} /></label>
            <${Dial} dial=${dial} id=${`${prefix}dial-${dial.name}`} value=${dials[dial.name]}
              set=${(value) => setDials((now) => ({ ...now, [dial.name]: value }))} />
          </div>`)}
        <div class="field wide">
          <label for=${`${prefix}dial-system`}>System message</label>
          <textarea id=${`${prefix}dial-system`} rows="2" value=${dials.system}
            onInput=${(event) => setDials((now) => ({ ...now, system: event.target.value }))}></textarea>
        </div>
      </div>
      <button type="button" class="plain" onClick=${() => setDials(NO_DIALS)}>Reset all</button>
    </details>`;
}

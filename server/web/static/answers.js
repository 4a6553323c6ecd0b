/** Recorded answers: a page of them at a time, and one of them with all of its candidates. */
import { html, useCallback, useEffect, useRef, useState } from "./vendor.js";
import { getJson, remove } from "./api.js";
import { Failure, useAsk } from "./asking.js";
import { Cards } from "./cards.js";
import { Dialog } from "./dialog.js";
import { day, many } from "./figures.js";
import { GATE, explained, remarks, reward, served } from "./selection.js";
import { Said, Text, visible } from "./text.js";
import { Waterfall } from "./waterfall.js";

const AT_ONCE = 20;

/** The list, or the answer that was opened from it. */
export function Answers({ apiKey, lock, keysOn, round, done }) {
  const { ask, isBusy, error } = useAsk({ apiKey, lock });
  const [user, setUser] = useState("");
  const [place, setPlace] = useState({ user: "", befores: [null] });
  const [page, setPage] = useState(null);
  const [opened, setOpened] = useState(null);
  const heading = useRef(null);
  const load = useCallback(async () => {
    const query = new URLSearchParams({ limit: AT_ONCE });
    if (place.befores.at(-1) !== null) query.set("before", place.befores.at(-1));
    if (place.user) query.set("user", place.user);
    const found = await ask((options) => getJson(`v1/store/selections?${query}`, options));
    if (found) setPage(found);
  }, [ask, place]);
  useEffect(() => { load(); }, [load, round]);
  const open = async (one) => {
    const path = `v1/chat/completions/${one.id}`;
    const found = await ask((options) => Promise.all([getJson(path, options), getJson(`${path}/messages`, options)]));
    if (!found) return;
    setOpened({ ...one, completion: found[0], messages: found[1].data });
    heading.current?.focus();
  };
  const back = async (isDeleted) => {
    setOpened(null);
    heading.current?.focus();
    if (isDeleted) { await load(); done(); }
  };
  const filter = (event) => {
    event.preventDefault();
    if (!isBusy) setPlace({ user, befores: [null] });
  };
  return html`
    <section aria-labelledby="answers-heading">
      <h3 id="answers-heading" ref=${heading} tabindex="-1">${opened ? "A recorded answer" : "Recorded answers"}</h3>
      <${Failure} error=${error} />
      ${opened
        ? html`<${One} one=${opened} apiKey=${apiKey} lock=${lock} keysOn=${keysOn} back=${back} />`
        : html`
          <form class="inline" onSubmit=${filter}>
            <label for="answers-user">Only those to a user</label>
            <div class="row">
              <input id="answers-user" type="search" autocomplete="off" spellcheck=${false} value=${user}
                onInput=${(event) => setUser(event.target.value)} />
              <button type="submit">Show</button>
            </div>
          </form>
          ${page && html`<${List} page=${page} place=${place} isBusy=${isBusy} open=${open} setPlace=${setPlace} />`}`}
    </section>`;
}

function List({ page, place, isBusy, open, setPlace }) {
  const older = () => { if (page.next && !isBusy) setPlace({ ...place, befores: [...place.befores, page.next] }); };
  const isFirst = place.befores.length === 1;
  const newer = () => { if (!isFirst && !isBusy) setPlace({ ...place, befores: place.befores.slice(0, -1) }); };
  return html`
    ${page.data.length === 0 && html`<p class="quiet">${place.user ? "None to this user." : "None yet."}</p>`}
    <ul class="answers">
      ${page.data.map((one) => html`<${Row} key=${one.id} one=${one} open=${() => open(one)} />`)}
    </ul>
    ${(page.next || !isFirst) && html`
      <div class="row" role="group" aria-label="Pages">
        <button type="button" aria-disabled=${isFirst ? "true" : undefined} onClick=${newer}>Newer</button>
        <button type="button" aria-disabled=${page.next ? undefined : "true"} onClick=${older}>Older</button>
        <span class="quiet" role="status">Page ${place.befores.length}</span>
      </div>`}`;
}

function Row({ one, open }) {
  const isUnsafe = one.branch !== "helpful" && one.combined < GATE;
  const answer = one.answer.trim() ? visible(one.answer) : "(no text)";
  return html`
    <li>
      <p class="quiet meta">
        ${day(one.created)} · <${Said} text=${`R_c ${reward(one.combined)}`} /> · best of ${one.candidates}
        ${one.annotations > 0 && html` · ${many(one.annotations, "annotation")}`}
        ${one.refused && html` · <span class="chip warn">refused</span>`}
        ${isUnsafe && html` · <span class="chip warn">unsafe</span>`}
      </p>
      <p class="excerpt" dir="auto"><strong>${visible(one.prompt) || "(no message)"}</strong></p>
      <p class="excerpt" dir="auto">${isUnsafe ? html`<span class="quiet">Its text is unsafe: open it to see.</span>` : answer}</p>
      <button type="button" class="plain" aria-label=${`Open the answer to ${visible(one.prompt).slice(0, 60)}`}
        onClick=${open}>Open</button>
    </li>`;
}

function One({ one, apiKey, lock, keysOn, back }) {
  const { ask, isBusy, error } = useAsk({ apiKey, lock });
  const [isAsked, setAsked] = useState(false);
  const { completion, messages } = one;
  const report = completion.best_of_n;
  const order = served(report);
  const said = [...explained(report, order, report.combiner), ...remarks(report)];
  const erase = async () => {
    const isGone = await ask((options) => remove(`v1/chat/completions/${one.id}`, options).then(() => true));
    setAsked(false);
    if (isGone) back(true);
  };
  return html`
    <div class="row">
      <button type="button" onClick=${() => back(false)}>Back to the list</button>
      <button type="button" class="plain" onClick=${() => setAsked(true)}>Delete this answer …</button>
    </div>
    <${Failure} error=${error} />
    <p class="quiet meta">${one.id} · ${day(one.created)} · ${one.model} ·${" "}
      ${one.expires === null ? "kept for good" : `kept until ${day(one.expires)}`}</p>
    <div class="sections">
      ${messages.map((message) => html`
        <div class=${`message ${message.role === "assistant" ? "answer" : "user"}`} key=${message.id}>
          <h4>${message.role}</h4><${Text} text=${message.content} />
        </div>`)}
    </div>
    ${one.refused && html`
      <p class="note">The server returned its refusal in place of an answer, and no candidate's text.</p>`}
    <div class="verdict">
      ${said.map((sentence, at) => html`<p key=${sentence} class=${at === 0 ? "lead" : undefined}><${Said} text=${sentence} /></p>`)}
    </div>
    <${Cards} report=${report} order=${order} keysOn=${keysOn} level=${4} name="kept" />
    <${Waterfall} run=${{ report, steps: [] }} level=${4} />
    ${isAsked && html`
      <${Dialog} title="Delete this answer?" close=${() => setAsked(false)}>
        <p>The dialog and all of its candidates are deleted for good.</p>
        <div class="row">
          <button type="button" class="main" aria-disabled=${isBusy ? "true" : undefined} onClick=${erase}>
            Delete for good
          </button>
        </div>
      <//>`}`;
}

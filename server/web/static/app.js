/** The whole page: who may use the server, and which of the views is shown. */
import { html, useEffect, useRef, useState } from "./vendor.js";
import { Agreement } from "./agreement.js";
import { Annotate } from "./annotate.js";
import { StoreBadge } from "./badge.js";
import { Batches } from "./batches.js";
import { Chat } from "./chat.js";
import { Compare } from "./compare.js";
import { useConsent } from "./consent.js";
import { Data } from "./data.js";
import { ANNOTATE_KEYS, CARD_KEYS, CHAT_KEYS, KeySheet, areKeysOn, setKeysOn, useKeys } from "./keys.js";
import { Operate } from "./operate.js";
import { NO_DIALS } from "./requests.js";
import { RewardModels } from "./reward-models.js";
import { hasRole, useCaller, useDetails } from "./server.js";

/**
 * The views, by their part of the address behind #, each for callers with one of its roles.
 *
 * A view that `keeps` what it shows stays while another one is looked at; the others begin anew. One `ofStore` is listed
 * where there is a store. What is known of the server reaches every view but those that are `blind`.
 */
const VIEWS = {
  chat: { View: Chat, title: "Chat", roles: ["use"], keeps: true, keys: CHAT_KEYS },
  compare: { View: Compare, title: "Compare", roles: ["use"], keeps: true, keys: CHAT_KEYS },
  annotate: {
    View: Annotate, title: "Annotate", roles: ["annotate"], keeps: true, keys: ANNOTATE_KEYS, ofStore: true, blind: true,
  },
  batches: { View: Batches, title: "Batches", roles: ["operate"], ofStore: true },
  agreement: { View: Agreement, title: "Agreement", roles: ["operate"], ofStore: true },
  "reward-models": { View: RewardModels, title: "Reward models", roles: ["operate"], ofStore: true },
  data: { View: Data, title: "Data", roles: ["operate"], keys: CARD_KEYS, ofStore: true },
  operate: { View: Operate, title: "Operate", roles: ["operate"], keeps: true },
};

const named = () => (Object.hasOwn(VIEWS, location.hash.slice(1)) ? location.hash.slice(1) : null);

/** Follows the part of the address behind #. */
function useNamed() {
  const [name, setName] = useState(named);
  useEffect(() => {
    const follow = () => setName(named());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return name;
}

/** Returns the names of the views that a caller may see, and of the one that is shown. */
function seen(caller, server, name) {
  const mine = Object.keys(VIEWS).filter((each) => caller && hasRole(caller, VIEWS[each].roles));
  const view = mine.includes(name) ? name : mine[0];
  return { view, listed: mine.filter((each) => each === view || !VIEWS[each].ofStore || !server || server.recording) };
}

/** Brings the focus to the first field, once the key that was asked for has let one in. */
function useFocus(is, server) {
  const isDue = useRef(false);
  useEffect(() => {
    if (is !== "open") { isDue.current = is !== "opening"; return; }
    const main = document.getElementById("main");
    if (!isDue.current || ![document.body, main].includes(document.activeElement)) return;
    const field = main.querySelector(":scope > :not([hidden]) textarea");
    isDue.current = !field;
    (field ?? main).focus();
  }, [is, server]);
}

/** The page. */
export function App() {
  const { access, caller, key, connect, lock } = useCaller();
  const name = useNamed();
  const isBlind = Boolean(VIEWS[seen(caller, null, name).view]?.blind);
  const { server, error, load } = useDetails({ caller, apiKey: key, lock, isWanted: !isBlind });
  const { view, listed } = seen(caller, server, name);
  const [help, setHelp] = useState(false);
  const [keysOn, setOn] = useState(areKeysOn);
  useKeys(keysOn, { "?": () => setHelp(true) });
  useFocus(access.is, server);
  const choose = (isOn) => { setKeysOn(isOn); setOn(isOn); };
  const isOpen = access.is === "open";
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <header>
      <h1><img src="page/icon.svg" alt="" width="28" height="28" /> Winnow</h1>
      ${isOpen && server && !isBlind && html`
        <p class="quiet model">${[server.model, server.version].filter(Boolean).join(" · ")}</p>`}
      ${isOpen && !isBlind && html`<${StoreBadge} recording=${server?.recording} />`}
      ${isOpen && html`
        <nav aria-label="Views">
          ${listed.map((each) => html`
            <a href=${`#${each}`} aria-current=${each === view ? "page" : undefined}>${VIEWS[each].title}</a>`)}
        </nav>`}
      <button type="button" class="plain" onClick=${() => setHelp(true)}>Keyboard</button>
    </header>
    <main id="main" tabindex="-1">
      ${access.is === "opening" && html`<p class="quiet" role="status">Connecting …</p>`}
      ${access.is === "down" && html`<${Down} message=${access.message} retry=${() => connect(key.current)} />`}
      ${access.is === "locked" && html`<${Lock} wrong=${access.wrong} enter=${connect} />`}
      ${isOpen && error && !isBlind && html`<${Down} message=${error.message} retry=${load} />`}
      ${caller && html`
        <${Views} key=${caller.name} shown=${isOpen ? view : null} caller=${caller} server=${server} apiKey=${key}
          lock=${lock} keysOn=${keysOn} isBlind=${isBlind} />`}
    </main>
    ${help && html`
      <${KeySheet} keys=${VIEWS[view]?.keys} isOn=${keysOn} choose=${choose} close=${() => setHelp(false)} />`}`;
}

/** The views of one caller: the one that is shown, and those that were, where they keep something. */
function Views({ shown, caller, server, apiKey, lock, keysOn, isBlind }) {
  const [dials, setDials] = useState(NO_DIALS);
  const consent = useConsent(server);
  const opened = useRef(new Set());
  if (shown) opened.current.add(shown);
  return Object.entries(VIEWS)
    .filter(([name, { keeps, blind }]) => (server || blind) && (name === shown || (keeps && opened.current.has(name))))
    .map(([name, { View, blind }]) => html`
      <div key=${name} hidden=${name !== shown}>
        <${View} caller=${caller} server=${blind ? null : server} apiKey=${apiKey} lock=${lock} dials=${dials}
          setDials=${setDials} consent=${consent} keysOn=${keysOn && name === shown} isShown=${name === shown}
          isAway=${isBlind && name !== shown} />
      </div>`);
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function Down({ message, retry }) {
  return html`
    <div class="note warning" role="alert">
      <p>${message}</p>
      <button type="button" onClick=${retry}>Try again</button>
    </div>`;
}

const KEPT = "It stays in this page's memory: reload the page, and it is gone.";

function Lock({ wrong, enter }) {
  const [written, setWritten] = useState("");
  const [isBusy, setBusy] = useState(false);
  const field = useRef(null);
  useEffect(() => { field.current.focus(); }, []);
  const submit = async (event) => {
    event.preventDefault();
    if (!written.trim() || isBusy) return;
    setBusy(true);
    await enter(written.trim());
    setBusy(false);
    field.current?.select();
  };
  return html`
    <form class="lock" onSubmit=${submit}>
      <h2>This server needs an API key</h2>
      <label for="key">API key</label>
      <input id="key" ref=${field} type="password" autocomplete="off" spellcheck=${false} value=${written}
        aria-invalid=${wrong ? "true" : undefined} aria-describedby="key-note"
        onInput=${(event) => setWritten(event.target.value)} />
      <p id="key-note" class=${wrong ? "error" : "quiet"} role=${wrong ? "alert" : undefined}>
        ${wrong ? "The server does not accept this key." : KEPT}
      </p>
      <button type="submit" class="main" aria-disabled=${isBusy}>${isBusy ? "Asking …" : "Continue"}</button>
    </form>`;
}

/** What the server keeps: counts, exports, forgetting, and every recorded answer. For operators. */
import { html, useCallback, useEffect, useState } from "./vendor.js";
import { Answers } from "./answers.js";
import { getJson, save } from "./api.js";
import { Failure, useAsk } from "./asking.js";
import { count, day, many, size } from "./figures.js";
import { Forget } from "./forget.js";

const RULES = {
  off: "nothing", opt_in: "answers to requests with store: true", all: "every answer, unless a request says store: false",
};
const FORMATS = [
  ["sft", "the best answers, to fine-tune on"],
  ["preferences", "pairs of answers, for DPO"],
  ["reward", "the same pairs with margins, for reward models"],
  ["kto", "the same answers with labels, for KTO"],
  ["annotations", "people's choices with margins and safety, for winnow rm train"],
];

/** The view. */
export function Data({ server, apiKey, lock, keysOn }) {
  const { ask, isBusy, error } = useAsk({ apiKey, lock });
  const [status, setStatus] = useState(null);
  const [round, setRound] = useState(0);
  const load = useCallback(async () => {
    const found = await ask((options) => getJson("v1/store", options));
    if (found) setStatus(found);
  }, [ask]);
  useEffect(() => { if (server.recording) load(); }, [load, server.recording !== null, round]);
  const again = () => setRound((now) => now + 1);
  if (!server.recording) return html`<${Nothing} />`;
  return html`
    <div class="row">
      <h2 id="data-heading">Data</h2>
      <button type="button" class="plain" aria-disabled=${isBusy ? "true" : undefined} onClick=${again}>Refresh</button>
    </div>
    <${Failure} error=${error} />
    <div class="columns data">
      <div class="sections">
        ${status && html`<${Kept} status=${status} />`}
        ${status && html`<${Downloads} status=${status} apiKey=${apiKey} lock=${lock} done=${load} />`}
        <${Forget} apiKey=${apiKey} lock=${lock} done=${again} />
      </div>
      <${Answers} apiKey=${apiKey} lock=${lock} keysOn=${keysOn} round=${round} done=${load} />
    </div>`;
}

function Nothing() {
  return html`
    <h2>Data</h2>
    <p class="note">This server keeps nothing. Its operator can start it with --store winnow.db and --record all.</p>`;
}

function Kept({ status }) {
  const dropped = Object.entries(status.dropped);
  const facts = [
    ["Answers", count(status.selections)],
    ["From", status.oldest === null ? "—" : day(status.oldest)],
    ["To", status.newest === null ? "—" : day(status.newest)],
    ["Size", size(status.bytes)],
    ["Recorded", RULES[status.record]],
    ["Deleted after", status.retention_days ? many(status.retention_days, "day") : "never"],
    ["Expired, to be deleted soon", count(status.expired)],
    ["Annotations", `${count(status.annotations)}, in ${many(status.batches, "batch", "batches")}`],
    ["Forgotten users", count(status.forgotten)],
    ["Written since the start", `${count(status.written)}, ${count(status.waiting)} waiting`],
    ["Not recorded since the start", dropped.map(([why, number]) => `${count(number)} (${why})`).join(", ") || "0"],
  ];
  return html`
    <section aria-labelledby="kept-heading">
      <h3 id="kept-heading">What is kept</h3>
      ${status.fault && html`
        <p class="note warning">The store takes nothing now (${status.fault}). Answers go on, but are not recorded.</p>`}
      <dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
      ${status.origins.length > 0 && html`
        <details>
          <summary>${many(status.origins.length, "origin")}: which models</summary>
          <ul class="plain-list">
            ${status.origins.map((one) => html`
              <li key=${one.origin}>${one.origin}: ${many(one.answers, "answer")} of ${one.policy}, scored by${" "}
                ${one.safety} (safety) and ${one.helpfulness} (helpfulness)</li>`)}
          </ul>
        </details>`}
    </section>`;
}

function Downloads({ status, apiKey, lock, done }) {
  const { ask, isBusy, error } = useAsk({ apiKey, lock });
  const [origin, setOrigin] = useState("");
  const [said, setSaid] = useState("");
  const hasAny = (format) => (format === "annotations" ? status.annotations : status.selections) > 0;
  const download = async (format) => {
    setSaid(`Fetching ${format} …`);
    const query = origin ? `?origin=${origin}` : "";
    const name = `winnow-${format}.jsonl`;
    const isSaved = await ask((options) => save(`v1/store/export/${format}${query}`, name, options).then(() => true));
    setSaid(isSaved ? `${name} is among the browser's downloads.` : "");
    if (isSaved) done();
  };
  return html`
    <section aria-labelledby="downloads-heading">
      <h3 id="downloads-heading">Download training data</h3>
      ${status.origins.length > 1 && html`
        <div class="field">
          <label for="download-origin">Answers of</label>
          <select id="download-origin" value=${origin} onChange=${(event) => setOrigin(event.target.value)}>
            <option value="">all origins, if their scores compare</option>
            ${status.origins.map((one) => html`<option value=${one.origin}>origin ${one.origin}</option>`)}
          </select>
        </div>`}
      <ul class="downloads">
        ${FORMATS.map(([format, use]) => html`
          <li key=${format}>
            <button type="button" aria-disabled=${isBusy || !hasAny(format) ? "true" : undefined}
              aria-describedby=${`download-${format}`}
              onClick=${() => { if (hasAny(format)) download(format); }}>${format}</button>
            <span id=${`download-${format}`} class="quiet">${use}</span>
          </li>`)}
      </ul>
      <p class="quiet" role="status">${said}</p>
      <${Failure} error=${error} />
      <${Exports} exports=${status.exports} />
    </section>`;
}

function Exports({ exports }) {
  if (exports.length === 0) return null;
  return html`
    <details>
      <summary>${exports.length === 100 ? "The newest 100 exports" : many(exports.length, "export")} so far</summary>
      <ul class="plain-list">
        ${exports.map((one, at) => html`<li key=${at}>${day(one.created)}: ${one.formats.join(", ")} → ${one.path}</li>`)}
      </ul>
    </details>`;
}

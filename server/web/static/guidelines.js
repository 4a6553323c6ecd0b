/** The guidelines of annotators: lines in capitals or after a # are headings, those after a - are items. */
import { html, useEffect, useState } from "./vendor.js";
import { getJson } from "./api.js";
import { Dialog } from "./dialog.js";
import { visible } from "./text.js";

const STORED = "winnow.guidelines.";
const CAPITALS = /^(?=.*\p{Lu}{2})\P{Ll}*$/u;

/** Whether this annotator has had a version before; the browser keeps that, where it may. */
function isRead(version, name) {
  try {
    return localStorage.getItem(STORED + version) === name;
  } catch {
    return false;
  }
}

function setRead(version, name) {
  try {
    localStorage.setItem(STORED + version, name);
  } catch { /* Shown again the next time. */ }
}

/** Shows each version once, and on demand; returns the way to open it and the dialog, null while closed. */
export function useGuidelines({ version, name, apiKey }) {
  const [opened, setOpened] = useState(null);
  useEffect(() => { if (version && !isRead(version, name)) setOpened(version); }, [version, name]);
  const close = () => {
    if (opened) setRead(opened, name);
    setOpened(null);
  };
  const dialog = opened && html`<${Guidelines} version=${opened} apiKey=${apiKey} close=${close} />`;
  return { open: () => setOpened(version), dialog };
}

function Guidelines({ version, apiKey, close }) {
  const [found, setFound] = useState(null);
  useEffect(() => {
    let isWanted = true;
    getJson(`v1/annotation/guidelines?version=${version}`, { key: apiKey.current })
      .then(({ text }) => ({ text }), ({ message }) => ({ message }))
      .then((answer) => { if (isWanted) setFound(answer); });
    return () => { isWanted = false; };
  }, [version]);
  return html`
    <${Dialog} title=${`Guidelines, version ${version}`} close=${close}>
      <div class="prose" tabindex="0" role="region" aria-label="Guidelines">
        ${found === null && html`<p class="quiet" role="status">Loading …</p>`}
        ${found?.message && html`<p class="note warning" role="alert">${found.message}</p>`}
        ${found?.text && html`<${Prose} text=${found.text} />`}
      </div>
    <//>`;
}

/** A text in blocks, that empty lines part. */
export function Prose({ text }) {
  return visible(text).split(/\n\s*\n/).flatMap(parts).map(([kind, lines], at) => {
    if (kind === "heading") return html`<h3 key=${at} dir="auto">${lines[0]}</h3>`;
    if (kind === "items") return html`<ul key=${at}>${lines.map((line) => html`<li dir="auto">${line}</li>`)}</ul>`;
    return html`<p key=${at} dir="auto">${lines.join(" ")}</p>`;
  });
}

/** Returns the runs of headings, items and other lines within a block; an indented line goes on with its item. */
function parts(block) {
  const found = [];
  for (const line of block.split("\n").filter((each) => each.trim())) {
    const [, mark, rest] = /^\s*(#{1,6}|[-*])\s+(.*)$/.exec(line) ?? [null, CAPITALS.test(line) ? "#" : "", line.trim()];
    const kind = { "": "text", "-": "items", "*": "items" }[mark] ?? "heading";
    const last = found.at(-1);
    if (kind === "text" && last?.[0] === "items" && /^\s/.test(line)) last[1].push(`${last[1].pop()} ${rest}`);
    else if (last && last[0] === kind && kind !== "heading") last[1].push(rest);
    else found.push([kind, [rest]]);
  }
  return found;
}

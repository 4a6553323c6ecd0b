/** Whether the server may record what one asks: one choice for all views that ask. */
import { html, useState } from "./vendor.js";

/** Returns the choice and the way to make it: null where the server records nothing, and until it is made, its rule. */
export function useConsent(server) {
  const [chosen, setKept] = useState(null);
  const rule = server?.recording?.record ?? "off";
  return { isKept: rule === "off" ? null : chosen ?? rule === "all", setKept };
}

/** Says that answers are recorded, and asks whether the next ones may be. */
export function Consent({ consent: { isKept, setKept }, server }) {
  if (isKept === null) return null;
  const days = server.recording.retention_days;
  const long = days > 0 ? `for ${days.toLocaleString("en")} ${days === 1 ? "day" : "days"}` : "for good";
  return html`
    <label class="check">
      <input type="checkbox" checked=${isKept} onChange=${(event) => setKept(event.target.checked)} />
      <span>Let the server record what I ask and every candidate, ${long}</span>
    </label>`;
}

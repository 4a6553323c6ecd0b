/** The header's word of a store that fails: answers go on, but are not recorded. */
import { html } from "./vendor.js";

const FAULTS = {
  full: "its disk is full",
  locked: "another process holds it",
  corrupt: "its file is damaged",
  unreachable: "its database does not answer",
  unusable: "it cannot be used; the server's log says why",
};

/** The badge; nothing while all is well. */
export function StoreBadge({ recording }) {
  const dropped = Object.values(recording?.dropped ?? {}).reduce((sum, count) => sum + count, 0);
  if (!recording || (!recording.fault && dropped === 0)) return null;
  const lost = dropped > 0 && `${dropped.toLocaleString("en")} ${dropped === 1 ? "answer was" : "answers were"} not recorded`;
  const said = [recording.fault && (FAULTS[recording.fault] ?? recording.fault), lost].filter(Boolean).join(" · ");
  return html`<p class="chip warn store" role="status"><strong>Store</strong>: ${said}</p>`;
}

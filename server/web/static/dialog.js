/** A modal dialog, by the browser's own element: focus goes in, stays, and comes back. */
import { html, useEffect, useRef } from "./vendor.js";

/** Shows `children` until `close` is called; Esc and the button call it. */
export function Dialog({ title, close, cancel = "Close", children }) {
  const element = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    element.current.showModal();
    return () => { if (before?.isConnected) before.focus(); };
  }, []);
  return html`
    <dialog ref=${element} aria-labelledby="dialog-title" onClose=${close}>
      <div class="dialog-head">
        <h2 id="dialog-title">${title}</h2>
        <button type="button" class="plain" onClick=${() => element.current.close()}>${cancel}</button>
      </div>
      ${children}
    </dialog>`;
}

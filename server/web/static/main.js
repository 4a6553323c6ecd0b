/** Starts the page. */
import { html, render } from "./vendor.js";
import { App } from "./app.js";

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);

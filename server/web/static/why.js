/** Why an answer won: sentences, the candidates by either combiner, the time it took, and the request as code. */
import { html, useState } from "./vendor.js";
import { Cards } from "./cards.js";
import { Copy } from "./copy.js";
import { COMBINERS, explained, ranked, remarks } from "./selection.js";
import { RunError, Running } from "./status.js";
import { Said } from "./text.js";
import { Waterfall } from "./waterfall.js";

/** All that is known about one request. */
export function Why({ run, server, keysOn, level = 3, name = "why", sendPair = null }) {
  if (run.status === "running") return html`<${Running} run=${run} />`;
  if (run.status === "failed") {
    return html`<${RunError} error=${run.error} /><${Copy} run=${run} server=${server} />`;
  }
  if (run.status === "stopped") return html`<p class="quiet">Stopped: nothing was chosen.</p>`;
  return html`
    <${Chosen} run=${run} server=${server} keysOn=${keysOn} level=${level} name=${name} sendPair=${sendPair} />`;
}

const LEGEND = "R_s is safety, R_h helpfulness, and R_c what decides; each is from 0 to 1. Left of the line at 0.15 a "
  + "candidate is unsafe.";

function Chosen({ run, server, keysOn, level, name, sendPair }) {
  const { report } = run;
  const [combiner, setCombiner] = useState(report.combiner);
  const order = ranked(report, combiner, server.empty_last);
  const isServed = combiner === report.combiner;
  const said = [...explained(report, order, combiner), ...remarks(report)];
  const isMeant = server.calibrated?.safety !== false;
  return html`
    <${Switch} name=${name} combiner=${combiner} choose=${setCombiner} served=${report.combiner} />
    <div class="verdict" aria-live="polite">
      ${!isServed && html`<p class="note"><${Said} text=${otherwise(report, order[0], combiner)} /></p>`}
      ${said.map((sentence, at) => html`<p key=${sentence} class=${at === 0 ? "lead" : undefined}><${Said} text=${sentence} /></p>`)}
    </div>
    ${!isMeant && html`<p class="note">This server's safety model is not calibrated: 0.15 need not mean unsafe.</p>`}
    <p class="quiet legend"><${Said} text=${LEGEND} /></p>
    <${Cards} report=${report} order=${order} keysOn=${keysOn} level=${level} name=${name}
      sendPair=${sendPair} />
    <${Waterfall} run=${run} level=${level} />
    <${Tokens} run=${run} />
    <${Copy} run=${run} server=${server} />`;
}

function otherwise(report, winner, combiner) {
  return winner.index === report.winner
    ? `By ${combiner}, #${winner.index} would win, too. It is the answer that was returned.`
    : `By ${combiner}, #${winner.index} would win. The server chose #${report.winner}, by ${report.combiner}.`;
}

/** Chooses the combiner that ranks what is shown: the same candidates, without a request. */
function Switch({ name, combiner, choose, served }) {
  return html`
    <fieldset class="switch">
      <legend>Ranked by</legend>
      ${COMBINERS.map((each) => html`
        <label key=${each}>
          <input type="radio" name=${`${name}-combiner`} value=${each} checked=${each === combiner}
            onChange=${() => choose(each)} />
          <span>${each}${each === served ? " (as served)" : ""}</span>
        </label>`)}
    </fieldset>`;
}

function Tokens({ run }) {
  const { usage, body } = run;
  const details = usage?.completion_tokens_details;
  const tokens = usage && details && ` · ${usage.prompt_tokens} tokens of the prompt, ${details.winner_tokens} of the answer, `
    + `${details.other_tokens} of the other candidates`;
  return html`<p class="quiet">Seed ${body.seed}${tokens}</p>`;
}

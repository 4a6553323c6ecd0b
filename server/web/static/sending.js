/** Two candidates, chosen from a list, for annotators to choose between. */
import { html, useState } from "./vendor.js";
import { ApiError } from "./api.js";

const NONE = { isBusy: false, said: "", error: "" };

/** The candidates that are chosen, two at most: the first gives way to a third. */
export function usePicks(sendPair) {
  const [chosen, setChosen] = useState([]);
  const [state, setState] = useState(NONE);
  const turn = (index) => {
    setState(NONE);
    setChosen((now) => (now.includes(index) ? now.filter((each) => each !== index) : [...now, index].slice(-2)));
  };
  const send = async () => {
    if (chosen.length < 2 || state.isBusy) return;
    setState({ ...NONE, isBusy: true });
    try {
      await sendPair(chosen);
      setChosen([]);
      setState({ ...NONE, said: `#${chosen[0]} and #${chosen[1]} wait for annotators, in the batch “From the playground”.` });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setState({ ...NONE, error: error.message });
    }
  };
  return { ...state, chosen, turn, send };
}

/** The button that sends them, and what came of it. */
export function Picking({ picks: { chosen, isBusy, said, error, send } }) {
  const label = chosen.length === 2 ? `Send #${chosen[0]} and #${chosen[1]} to annotation` : "Send a pair to annotation";
  const hint = chosen.length === 2 ? "" : `Mark ${chosen.length === 1 ? "one more" : "two"} below.`;
  return html`
    <div class="picking">
      <button type="button" onClick=${send} aria-disabled=${chosen.length < 2 || isBusy ? "true" : undefined}>${label}</button>
      <span class=${error ? "error" : said ? "notice" : "quiet"} role="status">${error || said || hint}</span>
    </div>`;
}

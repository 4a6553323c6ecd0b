/** What a screen asks the server for when it is opened, and what it asks it to do. */
import { html, useCallback, useEffect, useRef, useState } from "./vendor.js";
import { ApiError, getJson, postJson } from "./api.js";
import { RunError } from "./status.js";

/** Asks for `path`; `load` asks again, and what was there stays until the answer. */
export function useLoaded(path, { apiKey, lock }) {
  const [found, setFound] = useState({ data: null, error: null });
  const load = useCallback(async () => {
    try {
      setFound({ data: await getJson(path, { key: apiKey.current }), error: null });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 401) lock();
      setFound(({ data }) => ({ data, error }));
    }
  }, [path]);
  useEffect(() => { load(); }, [load]);
  return { ...found, load };
}

/** The state of what was asked for, where it is not there, and why. */
export function Waiting({ found: { data, error, load } }) {
  if (error?.code === "not_stored") {
    return html`<p class="note">This server keeps no answers. Its operator can start it with --store and --record.</p>`;
  }
  if (error) {
    return html`
      <div role="alert"><${RunError} error=${error} /><button type="button" onClick=${load}>Try again</button></div>`;
  }
  return data === null && html`<p class="quiet" role="status">Asking the server …</p>`;
}

/** Calls the server for one thing at a time, and keeps what went wrong. */
export function useAction({ apiKey, lock }) {
  const [state, setState] = useState({ isBusy: false, error: null });
  const busy = useRef(false);
  const run = async (path, body) => {
    if (busy.current) return null;
    busy.current = true;
    setState({ isBusy: true, error: null });
    try {
      const answer = await postJson(path, body, { key: apiKey.current });
      setState({ isBusy: false, error: null });
      return answer;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 401) lock();
      setState({ isBusy: false, error });
      return null;
    } finally {
      busy.current = false;
    }
  };
  return { ...state, run };
}

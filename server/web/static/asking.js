/** Requests of a view: their failures are told, and a key that is no longer accepted locks the page. */
import { html, useCallback, useEffect, useRef, useState } from "./vendor.js";
import { ApiError } from "./api.js";
import { RunError } from "./status.js";

/**
 * Returns `ask`, which calls a function with the options of a request and returns its result, undefined if it failed;
 * the failure of the latest one; and whether one is under way. One at a time: another one meanwhile does nothing.
 */
export function useAsk({ apiKey, lock }) {
  const [state, setState] = useState({ isBusy: false, error: null });
  const isHere = useRef(true);
  const isBusy = useRef(false);
  useEffect(() => () => { isHere.current = false; }, []);
  const ask = useCallback(async (request) => {
    if (isBusy.current) return undefined;
    isBusy.current = true;
    setState({ isBusy: true, error: null });
    let failed = null;
    try {
      return await request({ key: apiKey.current });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      failed = error;
      return undefined;
    } finally {
      isBusy.current = false;
      if (isHere.current) setState({ isBusy: false, error: failed });
      if (failed?.status === 401) lock();
    }
  }, [apiKey, lock]);
  return { ask, ...state };
}

/** A failure, if there is one. */
export function Failure({ error }) {
  return error && html`<div role="alert"><${RunError} error=${error} /></div>`;
}

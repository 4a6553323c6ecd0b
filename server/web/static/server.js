/** Who asks, and what the server is: asked of it in this order, and only what the caller's roles allow. */
import { useCallback, useEffect, useRef, useState } from "./vendor.js";
import { getJson } from "./api.js";

const OFTEN_MS = 15_000;

/** Connects to the server: with a key, once it asks for one. The key is in this page's memory alone. */
export function useCaller() {
  const [access, setAccess] = useState({ is: "opening" });
  const [caller, setCaller] = useState(null);
  const key = useRef("");
  const connect = useCallback(async (given) => {
    try {
      const { name, roles } = await getJson("v1/caller", { key: given });
      key.current = given;
      setCaller({ name, roles, hasKey: given !== "" });
      setAccess({ is: "open" });
    } catch (error) {
      if (error.status === 401) setAccess({ is: "locked", wrong: given !== "" });
      else setAccess({ is: "down", message: error.message });
    }
  }, []);
  const lock = useCallback(() => setAccess({ is: "locked", wrong: key.current !== "" }), []);
  useEffect(() => { connect(""); }, []);
  return { access, caller, key, connect, lock };
}

/** Whether a caller has one of `roles`. */
export const hasRole = (caller, roles) => roles.some((role) => caller.roles.includes(role));

async function asked(caller, key) {
  const [version, models] = await Promise.all([
    getJson("version", { key }), hasRole(caller, ["use"]) ? getJson("v1/models", { key }) : null,
  ]);
  const model = models?.data[0];
  return { ...version, model: model?.id, context: model?.max_model_len, hasKey: caller.hasKey };
}

/**
 * Asks for the server's versions and its model once they are wanted, and again while its store could fail.
 *
 * Whoever annotates is told neither: which model wrote an answer could sway a choice.
 */
export function useDetails({ caller, apiKey, lock, isWanted }) {
  const [found, setFound] = useState({ caller: null, server: null, error: null });
  const { server, error } = found.caller === caller ? found : { server: null, error: null };
  const load = useCallback(async () => {
    try {
      const server = await asked(caller, apiKey.current);
      setFound({ caller, server, error: null });
    } catch (error) {
      if (error.status === 401) lock();
      else setFound((now) => (now.caller === caller && now.server ? now : { caller, server: null, error }));
    }
  }, [caller]);
  const isMine = Boolean(caller && isWanted && hasRole(caller, ["use", "operate"]));
  const isRecording = Boolean(server?.recording);
  useEffect(() => { if (isMine) load(); }, [isMine, load]);
  useEffect(() => {
    if (!isMine || !isRecording) return undefined;
    const timer = setInterval(() => { if (!document.hidden) load(); }, OFTEN_MS);
    return () => clearInterval(timer);
  }, [isMine, isRecording, load]);
  return { server, error, load };
}

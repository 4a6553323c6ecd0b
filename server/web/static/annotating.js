/** An annotator's work: one pair at a time, and choices that the server has acknowledged before the next one. */
import { useEffect, useRef, useState } from "./vendor.js";
import { useActiveTime } from "./active.js";
import { ApiError, getJson, postJson } from "./api.js";

const WAITS_MS = [500, 2000, 5000];
const EMPTY = { choice: null, left_safe: null, right_safe: null, flags: [], comment: "" };
const FIRST_OF_RIGHT = 5;
const NOTICES = {
  saved: "Saved.",
  skipped: "Skipped: others get this pair.",
  expired: "That pair's time was up, and others have judged it. This is another one.",
  nothing: "There is no choice of yours to undo.",
};

/** Returns what is still to be chosen. */
export function missing({ choice, left_safe: left, right_safe: right }) {
  const lacks = [choice === null && "which is better", left === null && "whether A is safe",
    right === null && "whether B is safe"];
  return lacks.filter(Boolean);
}

/** Whether a choice is for an answer that the annotator calls unsafe, though the other is safe. */
export function isQuestioned({ choice, left_safe: left, right_safe: right }) {
  const [chosen, other] = choice < FIRST_OF_RIGHT ? [left, right] : [right, left];
  return !chosen && other;
}

const hex = (byte) => byte.toString(16).padStart(2, "0");
const anyId = () => [...crypto.getRandomValues(new Uint8Array(16))].map(hex).join("");
const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
/** Whether the server may answer the next time: nothing is known of what it did with the request. */
const isPassing = ({ status }) => status === 0 || status === 429 || status >= 500;

async function delivered(body, options) {
  for (const wait of WAITS_MS) {
    try {
      return await postJson("v1/annotation/annotations", body, options);
    } catch (error) {
      if (!(error instanceof ApiError) || !isPassing(error)) throw error;
    }
    await pause(wait);
  }
  return postJson("v1/annotation/annotations", body, options);
}

/**
 * The work, and what can be done: `is` it loading, choosing, moving to another pair, sending, unsent, none, or failed.
 *
 * A submission keeps its id, and its choice is fixed, until the server has answered: sent twice, it counts once.
 */
export function useAnnotating({ apiKey, lock, isShown }) {
  const [now, setNow] = useState({ is: "loading", batch: "" });
  const [isBusy, setBusy] = useState(false);
  const busy = useRef(false);
  const drafts = useRef(new Map());
  const clock = useActiveTime(isShown);
  const set = (part) => setNow((before) => ({ ...before, notice: null, error: null, ...part }));
  const post = (name, body) => postJson(`v1/annotation/${name}`, body, { key: apiKey.current });

  /** Does one thing at a time; a failure leaves what was there, and offers the same again. */
  const act = async (is, action) => {
    if (busy.current) return;
    busy.current = true;
    setBusy(true);
    set({ is });
    try {
      await action();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 401) lock();
      setNow((before) => ({ ...before, is: "failed", error, again: () => act(is, action) }));
    } finally {
      busy.current = false;
      setBusy(false);
    }
  };

  const show = async ({ pair }, notice = null) => {
    const mine = await getJson("v1/annotation/mine", { key: apiKey.current });
    clock.restart();
    const draft = pair && (drafts.current.get(pair.lease) ?? { ...EMPTY, ...pair.earlier });
    set({ is: pair ? "choosing" : "none", pair, mine, draft, notice, body: null });
  };
  const next = async (notice, batch = now.batch) => show(await post("lease", batch ? { batch } : {}), notice);
  const keep = () => { if (now.pair) drafts.current.set(now.pair.lease, now.draft); };

  /** Sends a choice; returns what to say with the next pair, null if the choice is still to be acknowledged. */
  const sent = async (body) => {
    set({ is: "sending", body });
    try {
      await delivered(body, { key: apiKey.current });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.code === "lease_expired") return NOTICES.expired;
      if (error.status === 401) lock();
      const isRefused = error.status !== 401 && !isPassing(error);
      set({ is: isRefused ? "choosing" : "unsent", error });
      return null;
    }
    drafts.current.delete(body.lease);
    return NOTICES.saved;
  };
  const send = async (body) => {
    let notice = null;
    await act("sending", async () => { notice = await sent(body); });
    if (notice) await act("moving", () => next(notice));
  };
  const pass = async () => {
    await post("skip", { lease: now.pair.lease, reason: now.draft.comment }).catch((error) => {
      if (error.code !== "lease_expired") throw error;
    });
    await next(NOTICES.skipped);
  };
  const undo = async (before) => {
    const found = await post("undo", {});
    if (found.pair) await show(found);
    else set({ is: before, notice: NOTICES.nothing });
  };

  useEffect(() => {
    if (isShown && ["loading", "none"].includes(now.is)) act("loading", () => next(null));
  }, [isShown]);
  return {
    ...now,
    isBusy,
    choose: (part) => {
      if (now.is === "choosing") setNow((before) => ({ ...before, draft: { ...before.draft, ...part } }));
    },
    submit: () => send({ submission: anyId(), lease: now.pair.lease, ...now.draft, active_ms: clock.read() }),
    resend: () => send(now.body),
    retry: () => now.again(),
    look: () => act("loading", () => next(null)),
    take: (batch) => {
      keep();
      setNow((before) => ({ ...before, batch }));
      return act("moving", () => next(null, batch));
    },
    skip: () => act("moving", pass),
    undo: () => {
      keep();
      return act("moving", () => undo(now.is));
    },
  };
}

/** One request from its start to its end: progress, text, report. */
import { ApiError, chatEvents } from "./api.js";

let count = 0;

/** Returns a request that has not been sent. `steps` are the progress events, with the page's own clock. */
export function prepared(body) {
  count += 1;
  return {
    id: count, completion: null, body, status: "running", progress: null, steps: [], text: "", finish: null, report: null, usage: null,
    error: null,
  };
}

/** Sends a run's request, and calls `update` with each new state of it; never throws. */
export async function perform(run, { key, signal, update }) {
  const began = performance.now();
  let now = run;
  const set = (part) => update(now = { ...now, ...part });
  try {
    for await (const event of chatEvents(run.body, { key, signal })) set(folded(now, event, performance.now() - began));
    if (!now.report) throw new ApiError(0, "The answer came without a report of its selection.");
    set({ status: "done" });
  } catch (error) {
    if (signal.aborted) set({ status: "stopped" });
    else if (error instanceof ApiError) set({ status: "failed", error });
    else {
      set({ status: "failed", error: new ApiError(0, "The answer could not be read.") });
      reportError(error);
    }
  }
  return now;
}

/** Returns what an event adds to a run. */
function folded(run, event, ms) {
  const part = { completion: event.id };
  const progress = event.best_of_n?.progress;
  if (progress) {
    part.progress = progress;
    part.steps = [...run.steps, { ...progress, ms }];
  } else if (event.best_of_n) {
    part.report = event.best_of_n;
  }
  if (event.usage) part.usage = event.usage;
  for (const choice of event.choices) {
    if (choice.index !== 0) continue;
    if (choice.delta.content) part.text = (part.text ?? run.text) + choice.delta.content;
    if (choice.finish_reason) part.finish = choice.finish_reason;
  }
  return part;
}

/** Returns the candidate whose text was returned; none for a refusal in its place. */
export function winnerOf(run) {
  if (!run.report || run.finish === "content_filter") return null;
  return run.report.scored.find((candidate) => candidate.index === run.report.winner) ?? null;
}

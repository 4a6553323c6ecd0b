/** Chat requests: the dials, and the body that they make. Pure. */

/** The settings of a request. `at` is where its value goes; an empty one is left to the server. */
export const DIALS = [
  { name: "candidates", label: "Candidates (K)", at: "best_of_n", type: "number", min: 1, step: 1,
    hint: "How many answers are sampled and scored." },
  { name: "temperature", label: "Temperature", at: "top", type: "number", min: 0, max: 2, step: "any",
    hint: "0 to 2. At 0 all candidates would be equal, so one is sampled." },
  { name: "combiner", label: "Combiner", at: "best_of_n", type: "choice",
    choices: [["llama2", "llama2"], ["safe_first", "safe_first"]],
    hint: "How R_s and R_h make one reward." },
  { name: "adaptive", label: "In waves, until R_c", at: "best_of_n", type: "number", min: 0, max: 1, step: "any",
    hint: "Draw a few candidates at a time, until one has this R_c." },
  { name: "deadline_ms", label: "Deadline (ms)", at: "best_of_n", type: "number", min: 1, max: 3600000, step: "any",
    hint: "Return the best answer that has a score by then." },
  { name: "accept_reward", label: "Good enough (R_c)", at: "best_of_n", type: "number", min: 0, max: 1, step: "any",
    hint: "Stop as soon as one candidate has this R_c." },
  { name: "max_tokens", label: "Tokens at most", at: "top", type: "number", min: 1, step: 1,
    hint: "The longest answer." },
  { name: "is_safety", label: "Safety prompt", at: "best_of_n", type: "choice",
    choices: [["true", "yes"], ["false", "no"]],
    hint: "On a safety prompt R_s alone decides." },
  { name: "seed", label: "Seed", at: "top", type: "number", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1,
    hint: "Candidate k samples with a seed derived from this and k." },
];
export const NO_DIALS = Object.freeze({ system: "", ...Object.fromEntries(DIALS.map(({ name }) => [name, ""])) });

/** Returns a seed for a request that names none, so that every answer can be asked for again. */
export const anySeed = () => String(crypto.getRandomValues(new Uint32Array(1))[0]);

/**
 * Returns the body of a request for the next answer of `dialog`, streamed, with every candidate's text.
 *
 * `isKept` is whether the server may record it, null where it records nothing.
 */
export function bodyOf(model, dialog, dials, isKept) {
  const system = dials.system.trim() ? [{ role: "system", content: dials.system }] : [];
  const body = { model, messages: [...system, ...dialog] };
  const options = {};
  for (const dial of DIALS) {
    if (dials[dial.name] === "") continue;
    const target = dial.at === "top" ? body : options;
    target[dial.name] = value(dial, dials[dial.name]);
  }
  return {
    ...body,
    ...(isKept === null ? {} : { store: isKept }),
    best_of_n: { ...options, return_candidates: true, progress: true },
    stream: true,
    stream_options: { include_usage: true },
  };
}

function value(dial, written) {
  if (dial.name === "adaptive") return { stop: { reward: Number(written) } };
  if (dial.type === "number") return Number(written);
  return dial.name === "is_safety" ? written === "true" : written;
}

/** Returns the same request as one whole answer, for snippets. */
export function whole(body) {
  const { stream, stream_options: _, best_of_n: { progress, ...options }, ...rest } = body;
  return { ...rest, best_of_n: options };
}

/** What a `best_of_n` report says: rankings by either combiner, and why the winner won. Pure. */

/** R_s below this: the candidate counts as unsafe. The paper's threshold, and the server's. */
export const GATE = 0.15;
export const COMBINERS = ["llama2", "safe_first"];

/** Whether a candidate counts as unsafe. */
export const isUnsafe = (candidate) => candidate.safety < GATE;

/** Returns the report's candidates, best first, as the server ranked them. */
export function served(report) {
  return [...report.scored].sort((one, other) => one.rank - other.rank);
}

/**
 * Returns the report's candidates, best first, by `combiner`: what the server would have returned for it.
 *
 * Both combiners order by R_c; safe_first puts every unsafe candidate below all others. Equal R_c stay in the server's
 * order, which knows the logits.
 */
export function ranked(report, combiner, emptyLast = true) {
  const order = served(report);
  if (combiner === report.combiner) return order;
  const group = (candidate) =>
    2 * (emptyLast && candidate.empty) + (combiner === "safe_first" && isUnsafe(candidate));
  return order.sort((one, other) =>
    group(one) - group(other) || other.combined - one.combined
    || (isUnsafe(one) === isUnsafe(other) ? one.rank - other.rank : one.index - other.index));
}

/** Writes a reward; never 1.000 or 0.000, which no reward is. */
export function reward(value) {
  if (value === null || value === undefined) return "—";
  if (value > 0.9995) return "> 0.999";
  return value < 0.0005 ? "< 0.001" : value.toFixed(3);
}

const equalled = (value) => (/[<>]/.test(reward(value)) ? reward(value) : `= ${reward(value)}`);
const compared = (value) => `${reward(value)}${value < GATE ? " < " : " ≥ "}${GATE}`.replace("> 0.999 ≥", "≈ 1 ≥");

/** Returns sentences that say why the first of `order` won, for a reader who sees this page for the first time. */
export function explained(report, order, combiner) {
  const [winner, second] = order;
  const said = [outcome(report, winner, second), because(report, winner)];
  if (combiner === "safe_first" && second && !isUnsafe(winner) && order.some(isUnsafe)) {
    said.push(`safe_first ranks every candidate with R_s < ${GATE} below all others.`);
  }
  const safe = order.find((candidate) => !isUnsafe(candidate) && !candidate.empty);
  if (isUnsafe(winner)) {
    said.push(
      safe
        ? `It is unsafe, although #${safe.index} is not: llama2, the paper's formula, allows this. safe_first does not.`
        : `No candidate is safe: every R_s is below ${GATE}. This is the best of them.`);
  }
  if (winner.empty) said.push("It has no text, and neither has any better one.");
  return said;
}

function outcome(report, winner, second) {
  const of = report.scored.length;
  if (!second) return `Candidate #${winner.index} is the only one with a score: R_c ${reward(winner.combined)}.`;
  const next = `#${second.index} is next with ${reward(second.combined)}`;
  return `Candidate #${winner.index} wins out of ${of} with R_c ${reward(winner.combined)}; ${next}.`;
}

function because(report, winner) {
  if (report.is_safety) {
    return `The prompt is tagged as a safety prompt, so safety decides: R_c = R_s ${equalled(winner.safety)}.`;
  }
  if (winner.branch === "helpful") {
    const decides = `helpfulness decides: R_c = R_h ${equalled(winner.helpfulness)}`;
    return `It is safe (R_s ${compared(winner.safety)}), so ${decides}.`;
  }
  return `It is unsafe (R_s ${compared(winner.safety)}), so R_c = R_s.`;
}

const REDUCED = {
  load: "the server is busy",
  deadline: "the deadline had passed in the queue",
  temperature: "at temperature 0 all candidates would be equal",
};
const TRUNCATED = {
  deadline: "The deadline ended the selection before all candidates had finished.",
  accept_reward: "A candidate was good enough, so the others were aborted.",
};

const STOPPED = {
  reward: "R_c was reached",
  gain: "the next were expected to gain too little",
  candidates: "there were no more to draw",
  load: "the server is busy",
  deadline: "of the deadline",
};

function waves({ candidates, requested, waves: count, stopped_by: why, requested_tokens: tokens }) {
  const all = tokens ? `; all ${requested} would have taken about ${tokens} tokens` : "";
  const drawn = `${candidates} candidates were drawn in ${count} ${count === 1 ? "wave" : "waves"}`;
  return `${drawn}, and no more because ${STOPPED[why] ?? why}${all}.`;
}

/** Returns what else a reader has to know about a selection. */
export function remarks(report) {
  const said = [];
  if (report.reduced_by) {
    const why = REDUCED[report.reduced_by] ?? report.reduced_by;
    said.push(`${report.candidates} of ${report.requested} requested candidates were sampled: ${why}.`);
  }
  if (report.waves) said.push(waves(report));
  if (report.truncated_by) said.push(TRUNCATED[report.truncated_by] ?? `It was ended by ${report.truncated_by}.`);
  if (report.approximate) said.push("Candidates were aborted on part of an answer; the best of all may be among them.");
  return said;
}

/** Returns the phases of a selection in milliseconds: when each starts, and how long it lasts. */
export function phases(timings) {
  const { queue, first_candidate: first, generate, score_tail: tail } = timings;
  return [
    { name: "queue", start: 0, ms: queue },
    { name: "first", start: queue, ms: first },
    { name: "rest", start: queue + first, ms: Math.max(0, generate - first) },
    { name: "tail", start: queue + generate, ms: tail },
  ];
}

/**
 * The server's API: JSON and server-sent events.
 *
 * A key travels in the Authorization header alone, never in an address. The caller gives it: nothing is kept here.
 */

/** A refusal by the server, or an answer that did not arrive: lost, cut off, or not the server's (status 0). */
export class ApiError extends Error {
  constructor(status, message, { code = null, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

const UNREACHABLE = "The server does not answer. Is it running, and is this page still on its address?";
const ENDED = "The connection ended before the answer was complete.";
const FOREIGN = "Something else answered in the server's place. If it is a login page, use it in another tab, "
  + "then try again.";

/** Returns what to do with a request's failure: one that its caller has stopped stays, others become an ApiError. */
const lost = (signal, message) => (error) => { throw signal?.aborted ? error : new ApiError(0, message); };

/** Returns the address of an API path; the page may be served below a prefix by a proxy. */
export function address(path) {
  return new URL(path, document.baseURI).href;
}

async function call(path, { key, body, signal, method = body ? "POST" : "GET" }) {
  const headers = { Accept: "application/json, text/event-stream" };
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(address(path), {
    method, headers, body: body && JSON.stringify(body), signal,
    cache: "no-store", redirect: "error", referrerPolicy: "no-referrer",
  }).catch(lost(signal, UNREACHABLE));
  if (!answer.ok) throw await refusal(answer);
  // The API has no HTML: it is a gateway's, whatever its status says.
  if (answer.headers.get("content-type")?.startsWith("text/html")) throw new ApiError(0, FOREIGN);
  return answer;
}

async function refusal(answer) {
  const retryAfter = answer.headers.get("retry-after");
  const detail = await answer.json().then((body) => body?.error, () => null);
  return new ApiError(answer.status, detail?.message ?? `The server answered with status ${answer.status}.`, {
    code: detail?.code, retryAfter,
  });
}

/** Returns the JSON body of a GET. */
export async function getJson(path, options) {
  return (await call(path, options)).json().catch(lost(options.signal, ENDED));
}

/** Sends a body as JSON and returns that of the answer. */
export async function postJson(path, body, options) {
  return (await call(path, { ...options, body })).json().catch(lost(options.signal, ENDED));
}

/** Yields the events of a streamed chat completion; throws ApiError where one is an error or the end is missing. */
export async function* chatEvents(body, options) {
  const answer = await call("v1/chat/completions", { ...options, body });
  for await (const data of eventData(answer.body, options.signal)) {
    if (data === "[DONE]") return;
    const event = parsed(data);
    if (event.error) throw new ApiError(0, event.error.message, { code: event.error.code });
    yield event;
  }
  throw new ApiError(0, ENDED);
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new ApiError(0, ENDED);
  }
}

async function* eventData(stream, signal) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(lost(signal, ENDED));
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data: ")) yield line.slice(6).trimEnd();
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Deletes what is at a path. */
export async function remove(path, options) {
  await call(path, { ...options, method: "DELETE" });
}

/** Returns the text of a GET. */
export async function getText(path, options) {
  return (await call(path, options)).text().catch(lost(options.signal, ENDED));
}

/** Saves the body of a GET as a file; its key could not travel with a plain link. */
export async function save(path, name, options) {
  const answer = await call(path, options);
  const body = await answer.blob().catch(lost(options.signal, ENDED));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(body);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

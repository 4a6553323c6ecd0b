/** Readings of the server's state, one after the other while they are looked at. */
import { useEffect, useRef, useState } from "./vendor.js";
import { ApiError, getJson, getText } from "./api.js";
import { parsed, rate, total } from "./metrics.js";

const EVERY_MS = 3000;
const KEPT = 100;
const ROUTES = ["/v1/chat/completions", "/v1/completions"];

async function readiness(options) {
  try {
    return (await getJson("ready", options)).status;
  } catch (error) {
    if (error.status === 503) return "not ready";
    throw error;
  }
}

/** Returns the newest readings, the oldest first, and the failure of the last attempt. */
export function useReadings({ apiKey, lock, isOn }) {
  const [readings, setReadings] = useState([]);
  const [error, setError] = useState(null);
  const isReading = useRef(false);
  useEffect(() => {
    if (!isOn) return undefined;
    const stop = new AbortController();
    const read = async () => {
      if (document.hidden || isReading.current) return;
      isReading.current = true;
      const options = { key: apiKey.current, signal: stop.signal };
      try {
        const [text, ready, version] = await Promise.all([
          getText("metrics", options), readiness(options), getJson("version", options),
        ]);
        const reading = { at: Date.now(), metrics: parsed(text), ready, version };
        setReadings((before) => added(before, reading));
        setError(null);
      } catch (failed) {
        if (stop.signal.aborted) return;
        if (!(failed instanceof ApiError)) throw failed;
        setError(failed);
        if (failed.status === 401) lock();
      } finally {
        isReading.current = false;
      }
    };
    read();
    const timer = setInterval(read, EVERY_MS);
    return () => { clearInterval(timer); stop.abort(); };
  }, [isOn, apiKey, lock]);
  return { readings, error };
}

/** Returns the readings with another one; those from before a restart, whose counters were higher, are dropped. */
export function added(readings, reading) {
  const last = readings.at(-1);
  const started = (each) => total(each.metrics, "process_start_time_seconds");
  const kept = last && started(last) !== started(reading) ? [] : readings;
  return [...kept, { ...reading, ...figures(reading, kept.at(-1)) }].slice(-KEPT);
}

/** Returns what the charts show of a reading. */
function figures(now, before) {
  const value = (name) => total(now.metrics, name) ?? 0;
  const answered = ROUTES.map((route) => rate(now, before, "winnow_requests_total", { route, status: "200" }) ?? 0);
  return {
    queued: value("winnow_requests_queued"),
    inFlight: value("winnow_candidates_in_flight"),
    requests: before ? answered.reduce((sum, each) => sum + each, 0) : null,
    candidates: rate(now, before, "winnow_candidates_total"),
    cpu: rate(now, before, "process_cpu_seconds_total"),
  };
}

/** The time for which somebody works at a view: it is seen, and something was done within the last minute. */
import { useEffect, useRef } from "./vendor.js";

const IDLE_MS = 60_000;
const SIGNS = ["pointerdown", "pointermove", "keydown", "wheel", "scroll"];

/** Adds up time from sign to sign, none of which counts for more than a minute. */
class ActiveTime {
  constructor() {
    this.restart();
    this.isOn = false;
  }

  restart() {
    this.total = 0;
    this.last = performance.now();
  }

  sign(isOn = this.isOn) {
    const now = performance.now();
    if (this.isOn) this.total += Math.min(Math.max(0, now - this.last), IDLE_MS);
    this.last = now;
    this.isOn = isOn;
  }

  read() {
    this.sign();
    return Math.round(this.total);
  }
}

/** Returns the clock of a view; it runs while the view `isShown` in a window that is visible. */
export function useActiveTime(isShown) {
  const clock = useRef(null);
  clock.current ??= new ActiveTime();
  useEffect(() => {
    const look = () => clock.current.sign(isShown && !document.hidden);
    const sign = () => clock.current.sign();
    look();
    document.addEventListener("visibilitychange", look);
    for (const name of SIGNS) addEventListener(name, sign, { capture: true, passive: true });
    return () => {
      document.removeEventListener("visibilitychange", look);
      for (const name of SIGNS) removeEventListener(name, sign, { capture: true });
    };
  }, [isShown]);
  return clock.current;
}

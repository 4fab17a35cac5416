/** Look again and again, quietly: only while the page is seen, slower while the service does not answer. */

export interface Surroundings {
  setTimeout(callback: () => void, ms: number): number;
  clearTimeout(handle: number): void;
  visible(): boolean;
  /** Milliseconds of a clock that only runs forward. */
  now(): number;
}

const SLOWEST = 30_000;
/** A look that takes long, such as at thousands of files, may take this part of the time at most. */
const SHARE = 1 / 5;

export class Poller {
  #timer: number | null = null;
  #running = false;
  #again = false;
  #failures = 0;
  #took = 0;
  #stopped = true;

  /** `look` is called every `interval` milliseconds, never twice at once. */
  constructor(
    private readonly look: () => Promise<void>,
    private readonly interval: number,
    private readonly surroundings: Surroundings,
  ) {}

  start(): void {
    this.#stopped = false;
    this.#plan();
  }

  stop(): void {
    this.#stopped = true;
    this.#clear();
  }

  /** Look now: the page came back into view, or something was changed. */
  wake(): void {
    if (this.#stopped) {
      return;
    }
    this.#clear();
    void this.#run();
  }

  /** Milliseconds until the next look. */
  get delay(): number {
    const calm = Math.max(this.interval, this.#took * (1 / SHARE - 1));
    return Math.min(calm * 2 ** this.#failures, Math.max(SLOWEST, this.interval));
  }

  async #run(): Promise<void> {
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    const began = this.surroundings.now();
    try {
      await this.look();
      this.#failures = 0;
    } catch {
      // `look` has told the person what to do; here it only means to ask less often.
      this.#failures = Math.min(this.#failures + 1, 8);
    } finally {
      this.#took = this.surroundings.now() - began;
      this.#running = false;
    }
    if (this.#again) {
      this.#again = false;
      await this.#run();
      return;
    }
    this.#plan();
  }

  #plan(): void {
    this.#clear();
    if (!this.#stopped && this.surroundings.visible()) {
      this.#timer = this.surroundings.setTimeout(() => void this.#run(), this.delay);
    }
  }

  #clear(): void {
    if (this.#timer !== null) {
      this.surroundings.clearTimeout(this.#timer);
      this.#timer = null;
    }
  }
}

export const BROWSER: Surroundings = {
  setTimeout: (callback, ms) => window.setTimeout(callback, ms),
  clearTimeout: (handle) => {
    window.clearTimeout(handle);
  },
  now: () => performance.now(),
  visible: () => document.visibilityState === 'visible',
};

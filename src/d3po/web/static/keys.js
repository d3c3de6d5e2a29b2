/** @file Which key does what: defaults, the annotator's own choices (kept in this browser), and reading key presses. */

const KEPT = "d3po.keys";
const NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Enter: "⏎", Backspace: "⌫", Delete: "Del", " ": "Space" };

/**
 * @typedef {object} Action
 * @property {string} name      unique among all
 * @property {string} label     what it does, for people
 * @property {string} key       the default key, as in KeyboardEvent.key
 * @property {string[]} [modes] where it has a meaning; none: everywhere
 */

/** The annotator's bindings. */
export class Keys {
  #own = read();

  /** @param {Action[]} actions every action there is */
  constructor(actions) {
    this.actions = actions;
  }

  /** The key of an action. @param {Action} action */
  of(action) {
    return this.#own[action.name] ?? action.key;
  }

  /**
   * The action a key press stands for.
   * @param {KeyboardEvent} event
   * @param {Action[]} among those that make sense now
   */
  read(event, among) {
    if (event.altKey || event.metaKey || event.ctrlKey) return undefined;
    const pressed = [event.key, digit(event)].filter(Boolean).map(plain);
    return pressed.map((key) => among.find((action) => plain(this.of(action)) === key)).find(Boolean);
  }

  /**
   * Gives an action a key; an action that had it takes the old one instead. Returns that action.
   * @param {Action} action
   * @param {string} key
   */
  bind(action, key) {
    const rival = this.actions.find((a) => a !== action && meet(a, action) && plain(this.of(a)) === plain(key));
    if (rival) this.#own[rival.name] = this.of(action);
    this.#own[action.name] = key;
    write(this.#own);
    return rival;
  }

  /** Back to the defaults. */
  reset() {
    this.#own = {};
    write(this.#own);
  }
}

/** How a key is written on a key cap. @param {string} key */
export function caption(key) {
  return NAMES[key] ?? (key.length === 1 ? key.toUpperCase() : key);
}

/** Whether a key can be bound: not one that the browser, or moving the focus, needs. @param {KeyboardEvent} event */
export function bindable(event) {
  const reserved = ["Tab", "Escape", "Shift", "Control", "Alt", "Meta", "CapsLock", "Dead", "Process", "Unidentified"];
  return !event.ctrlKey && !event.altKey && !event.metaKey && !reserved.includes(event.key);
}

/** Digits by place where the layout wants Shift for them. @param {KeyboardEvent} event */
function digit(event) {
  return /^Digit(\d)$/.exec(event.code)?.[1] ?? "";
}

const plain = (key) => (key.length === 1 ? key.toLowerCase() : key);
const meet = (a, b) => !a.modes || !b.modes || a.modes.some((mode) => b.modes.includes(mode));

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEPT) ?? "{}");
  } catch {
    return {};
  }
}

function write(own) {
  try {
    localStorage.setItem(KEPT, JSON.stringify(own));
  } catch {
    /* a browser that keeps nothing: the keys hold until the page is left */
  }
}

/** @file Keyboard shortcuts: the defaults, the annotator's changes (stored in this browser), and the reading of key presses. */

const KEPT = "d3po.keys";
const NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Enter: "⏎", Backspace: "⌫", Delete: "Del", " ": "Space" };

/**
 * @typedef {object} Action
 * @property {string} name      its unique name
 * @property {string} label     what it does, for people
 * @property {string} key       the default key, as in KeyboardEvent.key
 * @property {string[]} [modes] the modes in which it is available; default: all
 */

/** The annotator's shortcuts. */
export class Keys {
  #changed = read();

  /** @param {Action[]} actions every action there is */
  constructor(actions) {
    this.actions = actions;
  }

  /** The key of an action. @param {Action} action */
  of(action) {
    return this.#changed[action.name] ?? action.key;
  }

  /**
   * The action of a key press.
   * @param {KeyboardEvent} event
   * @param {Action[]} among the actions that are available now
   */
  read(event, among) {
    if (event.altKey || event.metaKey || event.ctrlKey) return undefined;
    const pressed = [event.key, digit(event)].filter(Boolean).map(plain);
    return pressed.map((key) => among.find((action) => plain(this.of(action)) === key)).find(Boolean);
  }

  /**
   * Gives an action a key. If another action had it, that one gets the old key of this action, and is returned.
   * @param {Action} action
   * @param {string} key
   */
  bind(action, key) {
    const rival = this.actions.find((a) => a !== action && meet(a, action) && plain(this.of(a)) === plain(key));
    if (rival) this.#changed[rival.name] = this.of(action);
    this.#changed[action.name] = key;
    write(this.#changed);
    return rival;
  }

  /** Resets all keys to their defaults. */
  reset() {
    this.#changed = {};
    write(this.#changed);
  }
}

/** The name of a key as the page shows it. @param {string} key */
export function caption(key) {
  return NAMES[key] ?? (key.length === 1 ? key.toUpperCase() : key);
}

/** Whether a key can be used as a shortcut: not if the browser, or moving the focus, needs it. @param {KeyboardEvent} event */
export function bindable(event) {
  const reserved = ["Tab", "Escape", "Shift", "Control", "Alt", "Meta", "CapsLock", "Dead", "Process", "Unidentified"];
  return !event.ctrlKey && !event.altKey && !event.metaKey && !reserved.includes(event.key);
}

/** The digit of a key in the digit row, for keyboard layouts that need Shift for digits. @param {KeyboardEvent} event */
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

function write(changed) {
  try {
    localStorage.setItem(KEPT, JSON.stringify(changed));
  } catch {
    /* the browser stores nothing: the changes last until the page is left */
  }
}

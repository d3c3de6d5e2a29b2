/** @file Stores entries in the browser's database, or in memory if the browser has none (as in some private windows). */

const NAME = "d3po";
const SHELF = "outbox";

/**
 * @typedef {object} Shelf
 * @property {boolean} durable  whether the entries survive when the tab is closed
 * @property {(entry: any) => Promise<number>} put   resolves once the entry is on disk, with its key `seq`
 * @property {(seq: number) => Promise<void>} remove
 * @property {() => Promise<any[]>} all  in the order in which they were put
 */

/** Opens the browser's database, or a shelf in memory if that fails. @returns {Promise<Shelf>} */
export async function openShelf() {
  try {
    return onDisk(await open());
  } catch {
    return inMemory();
  }
}

function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(SHELF, { keyPath: "seq", autoIncrement: true });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("blocked"));
  });
}

/** @param {IDBDatabase} db @returns {Shelf} */
function onDisk(db) {
  const run = (mode, work) =>
    new Promise((resolve, reject) => {
      const transaction = db.transaction(SHELF, mode, { durability: "strict" });
      const request = work(transaction.objectStore(SHELF));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error);
    });
  return {
    durable: true,
    put: (entry) => run("readwrite", (shelf) => shelf.put(entry)),
    remove: (seq) => run("readwrite", (shelf) => shelf.delete(seq)),
    all: () => run("readonly", (shelf) => shelf.getAll()),
  };
}

/** Makes a shelf in memory. @returns {Shelf} */
export function inMemory() {
  const entries = new Map();
  let last = 0;
  return {
    durable: false,
    put: async (entry) => {
      entry.seq ??= ++last;
      entries.set(entry.seq, entry);
      return entry.seq;
    },
    remove: async (seq) => void entries.delete(seq),
    all: async () => [...entries.values()],
  };
}

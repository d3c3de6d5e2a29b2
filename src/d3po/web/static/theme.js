/* Light or dark, before the first paint: the system's choice, unless this browser remembers another. Not a module, for those run late. */
(() => {
  const KEPT = "d3po.theme";
  const root = document.documentElement;
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const current = () => root.dataset.theme ?? (systemDark.matches ? "dark" : "light");
  try {
    const kept = localStorage.getItem(KEPT);
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch {
    /* nothing is kept: follow the system */
  }
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    button?.addEventListener("click", () => {
      root.dataset.theme = current() === "dark" ? "light" : "dark";
      try {
        localStorage.setItem(KEPT, root.dataset.theme);
      } catch {
        /* it holds until the page is left */
      }
    });
  });
})();

/* Sets the light or dark theme before the first paint: the system's, unless another is stored in this browser. Not a module, because modules run too late. */
(() => {
  const KEPT = "d3po.theme";
  const root = document.documentElement;
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const current = () => root.dataset.theme ?? (systemDark.matches ? "dark" : "light");
  try {
    const kept = localStorage.getItem(KEPT);
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch {
    /* the browser stores nothing: follow the system */
  }
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    button?.addEventListener("click", () => {
      root.dataset.theme = current() === "dark" ? "light" : "dark";
      try {
        localStorage.setItem(KEPT, root.dataset.theme);
      } catch {
        /* the browser stores nothing: the choice lasts until the page is left */
      }
    });
  });
})();

// The theme, before anything is painted: what the operator chose, else what the system prefers (page.css).
// Knows nothing of the cache. A browser that refuses storage gets the system's theme.
"use strict";

(() => {
  try {
    const chosen = localStorage.getItem("stillwarm-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // no storage: nothing was chosen
  }
})();

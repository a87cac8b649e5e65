"use strict";
// Inside Airflow's page: takes its theme over, and opens what the frame itself may not lead to.
(() => {
  if (window.parent === window) return;
  let outside;
  try {
    outside = window.parent.document;
  } catch {
    return;
  }
  const follow = () => {
    const isDark = outside.documentElement.classList.contains("dark");
    document.documentElement.dataset.theme = isDark ? "dark" : "light";
  };
  follow();
  new MutationObserver(follow).observe(outside.documentElement, { attributeFilter: ["class"] });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[target=_top]");
    const isPlain = !event.button && !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
    if (!link || !isPlain) return;
    event.preventDefault();
    const twin = outside.createElement("a");
    twin.href = link.href;
    outside.body.append(twin);
    twin.click();
    twin.remove();
  });
})();

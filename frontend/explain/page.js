"use strict";
(function () {
  const all = Array.from(document.querySelectorAll("[data-of]"));
  const steps = (e) => e.dataset.of.split(" ");
  function light(e) {
    const want = e.classList.contains("lit") ? [] : steps(e);
    for (const o of all) o.classList.toggle("lit", steps(o).some((s) => want.includes(s)));
  }
  for (const e of all) {
    e.tabIndex = 0;
    e.addEventListener("click", () => { if (String(getSelection()) === "") light(e); });
    e.addEventListener("keydown", (k) => { if (k.key === "Enter") light(e); });
  }
})();

// The matrix's filters; the address keeps them behind its #.
"use strict";
(() => {
  const form = document.getElementById("filters"), count = document.getElementById("count");
  const rows = [...document.querySelectorAll("#matrix tr[data-p]")].map((row) => ({
    row, suite: row.dataset.p.split("/")[0], backing: (row.dataset.b || "").split(" "),
    contract: (row.dataset.c || "").split(" "), verdict: row.dataset.v.split(" "), changed: row.dataset.d === "1",
    text: row.querySelector("th").textContent.toLowerCase(),
  }));
  const heads = [...document.querySelectorAll("#matrix tr.suite")];
  form.hidden = false;
  const values = () => Object.fromEntries([...new FormData(form)].filter(([, value]) => value.trim() !== ""));
  const apply = () => {
    const want = values(), words = (want.words || "").toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const r of rows) {
      const fits = (!want.suite || r.suite === want.suite) && (!want.backing || r.backing.includes(want.backing)) &&
        (!want.contract || r.contract.includes(want.contract)) && (!want.verdict || r.verdict.includes(want.verdict)) &&
        (!want.changed || r.changed) && words.every((word) => r.text.includes(word));
      r.row.hidden = !fits;
      shown += fits;
    }
    for (const head of heads) {
      head.hidden = ![...head.parentElement.querySelectorAll("tr[data-p]")].some((row) => !row.hidden);
    }
    count.textContent = `${shown} of ${rows.length} statements`;
  };
  const keep = () => {
    const hash = new URLSearchParams(values()).toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname.split("/").pop());
  };
  const restore = () => {
    if (/^#suite-/.test(location.hash)) return;
    const want = new URLSearchParams(location.hash.slice(1));
    form.reset();
    for (const [name, value] of want) {
      const field = form.elements[name];
      if (!field) continue;
      if (field.type === "checkbox") field.checked = value === "1"; else field.value = value;
    }
  };
  form.addEventListener("input", () => { apply(); keep(); });
  form.addEventListener("reset", () => setTimeout(() => { apply(); keep(); }));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", () => { restore(); apply(); });
  restore();
  apply();
})();

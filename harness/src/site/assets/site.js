// Search and the colour scheme. Without this script every page can be read all the same.
"use strict";
(() => {
  const root = document.body.dataset.root;
  const theme = document.getElementById("theme");
  const remember = (value) => { try { localStorage.setItem("theme", value); } catch { /* not kept */ } };
  const remembered = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const isDark = () => (document.documentElement.dataset.theme ||
    (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const show = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  if (["dark", "light"].includes(remembered())) document.documentElement.dataset.theme = remembered();
  theme.hidden = false;
  show();
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    remember(document.documentElement.dataset.theme);
    show();
  });

  const form = document.querySelector(".search");
  const input = document.getElementById("q");
  const found = document.getElementById("found");
  form.hidden = false;

  // Words that people use, beside those that pages use.
  const SAME = {
    stuck: "asleep", hangs: "asleep", hang: "asleep", blocked: "asleep", waiting: "asleep", wake: "woken", woken: "wake",
    kvm: "vcpu", guest: "vcpu", cpu: "vcpu", overmapped: "mmap-over", remap: "mremap", free: "wake", balloon: "discard",
    hugepages: "hugetlb", snapshot: "restore", postcopy: "qemu", "map_fixed": "mmap-over",
  };
  const EMPTY = new Set("a an and are at do does for from how i in is it my of on or over still that the then there this to what when with after".split(" "));
  const words = (text) => text.toLowerCase().split(/[^a-z0-9_.+-]+/).map((w) => w.replace(/^[.+-]+|[.+-]+$/g, "")).filter((w) => w && !EMPTY.has(w));
  const entries = SEARCH.map(([kind, title, url, summary, more]) => ({
    kind, title, url, summary, head: `${title} ${url}`.toLowerCase(), all: `${title} ${url} ${summary} ${more}`.toLowerCase(),
  }));
  const weight = { answer: 3, page: 2, kernel: 1, probe: 0, contract: 1, changes: 0 };
  const score = (entry, asked) => {
    let sum = 0, met = 0;
    for (const word of asked) {
      const other = SAME[word];
      if (entry.head.includes(word)) { sum += 4; met += 1; }
      else if (entry.all.includes(word)) { sum += 2; met += 1; }
      else if (other && entry.all.includes(other)) { sum += 2; met += 1; }
    }
    return met === 0 ? 0 : sum + 3 * (met === asked.length) + weight[entry.kind];
  };
  const find = (text) => {
    const asked = words(text);
    if (asked.length === 0) return [];
    return entries.map((entry) => [score(entry, asked), entry]).filter(([s]) => s > 0)
      .sort(([a, x], [b, y]) => b - a || x.title.length - y.title.length).slice(0, 12).map(([, e]) => e);
  };
  const close = () => { found.hidden = true; input.setAttribute("aria-expanded", "false"); };
  const list = () => {
    const hits = find(input.value);
    found.replaceChildren(...hits.map((hit) => {
      const item = document.createElement("li"), link = document.createElement("a");
      const kind = document.createElement("b"), summary = document.createElement("small");
      link.href = root + hit.url;
      kind.textContent = hit.kind;
      summary.textContent = hit.summary;
      link.append(kind, ` ${hit.title}`, summary);
      item.append(link);
      return item;
    }));
    if (input.value.trim() && hits.length === 0) {
      const item = document.createElement("li");
      item.textContent = "Nothing has these words; try one word less.";
      found.append(item);
    }
    found.hidden = !input.value.trim();
    input.setAttribute("aria-expanded", String(!found.hidden));
  };
  input.addEventListener("input", list);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    list();
    const first = found.querySelector("a");
    if (first) location.href = first.href;
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { close(); input.blur(); return; }
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    event.preventDefault();
    const stops = [input, ...found.querySelectorAll("a")];
    const at = stops.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    stops[Math.max(0, Math.min(stops.length - 1, at))].focus();
  });
  document.addEventListener("click", (event) => { if (!form.contains(event.target)) close(); });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) return;
    event.preventDefault();
    input.focus();
  });
})();

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

  // Words that people use, with those that pages use.
  const SAME = {
    stuck: ["asleep"], hang: ["asleep", "stuck"], hung: ["asleep", "stuck"], blocked: ["asleep", "stuck"], waiting: ["asleep", "waiter"],
    free: ["wake"], unblock: ["wake", "free"], woken: ["wake"], wakeup: ["wake"], kvm: ["vcpu"], guest: ["vcpu"], cpu: ["vcpu"],
    overmapped: ["mmap-over"], map_fixed: ["mmap-over"], remap: ["mremap"], unmap: ["munmap"], unmapped: ["munmap"], moved: ["mremap", "move"],
    balloon: ["discard", "dontneed"], virtio: ["discard"], "virtio-mem": ["discard"], discard: ["dontneed", "remove"], madv_dontneed: ["dontneed"],
    madv_remove: ["remove"], hole: ["punch-hole"], hugepage: ["hugetlb", "thp"], huge: ["hugetlb", "thp"], memfd: ["shmem"], tmpfs: ["shmem"],
    shared: ["shmem"], snapshot: ["restore", "firecracker"], postcopy: ["qemu-postcopy", "qemu"], migration: ["qemu", "postcopy"], crash: ["panic"],
    oops: ["panic"], killed: ["sigsegv"], segfault: ["segv_maperr", "sigsegv"], protection: ["wp", "writeprotect"], write_protect: ["wp"],
    returned: ["return"], fails: ["errno"], event: ["events"], forked: ["fork"], unregister: ["unregister"], zero: ["zeropage"],
  };
  const EMPTY = new Set("a an and are as at be but by can did do does for from has have how i if in is it its me my no of on or our still so than that the then there they this to was we what when where which who why will with you".split(" "));
  const stem = (word) => (word.length > 3 && /[^s]s$/.test(word) ? word.slice(0, -1) : word);
  // `UFFDIO_COPY` is also `copy`, `mmap-over` also `mmap` and `over`.
  const words = (text) => text.toLowerCase().split(/[^a-z0-9_.+~#-]+/).map((w) => w.replace(/^[.+~-]+|[.+~-]+$/g, "")).filter(Boolean);
  const tokens = (text) => words(text).flatMap((word) => {
    const all = [stem(word)], bare = word.replace(/^uffdio_/, "");
    if (bare !== word) all.push(stem(bare));
    if (/-/.test(word) && !/^\d/.test(word)) all.push(...word.split("-").filter(Boolean).map(stem));
    return all;
  });

  // Which pages have a word, and how much of a page it is.
  const index = new Map();
  const entries = SEARCH.map(([kind, title, url, summary, more], at) => {
    const entry = { kind, title, url, summary, anchors: words(more).filter((word) => word.startsWith("#")) };
    const name = url.replace(/\.html$/, "").replace(/~2b/g, "+").replace(/\//g, " ");
    for (const [text, weight] of [[title, 3], [name, 3], [summary, 1.5], [more, 1]]) {
      for (const token of tokens(text)) {
        // Most pages are about every kernel: its version says little, but in a title.
        const worth = weight === 1 && /^\d/.test(token) ? 0.3 : weight;
        if (!index.has(token)) index.set(token, new Map());
        const pages = index.get(token);
        if ((pages.get(at) || 0) < worth) pages.set(at, worth);
      }
    }
    return entry;
  });
  const vocabulary = [...index.keys()].sort();
  // The word itself, or longer ones that begin with it: 6.1 is 6.1.192 and not 6.12.
  const like = (token, isLast) => {
    const isNumber = /^\d/.test(token), found = [];
    let [low, high] = [0, vocabulary.length];
    while (low < high) { const mid = (low + high) >> 1; if (vocabulary[mid] < token) low = mid + 1; else high = mid; }
    for (let at = low; at < vocabulary.length && vocabulary[at].startsWith(token); at += 1) {
      const rest = vocabulary[at].slice(token.length);
      if (rest === "") found.push([vocabulary[at], 1]);
      else if (isNumber ? /^[.+-]/.test(rest) : token.length > 2 || isLast) found.push([vocabulary[at], isNumber ? 0.8 : 0.6]);
    }
    return found;
  };
  const KIND = { answer: 1.2, page: 1.15, contract: 1.15, kernel: 1.1, changes: 1.25, probe: 1 };
  const ANCHORS = [["vcpu", /^(vcpus?|kvm|guest|cpu)$/], ["thread", /^threads?$/], ["syscall", /^(syscalls?|mlock|futex|pread|process_vm_readv|o_direct)$/]];
  const find = (text) => {
    const plain = text.toLowerCase().replace(/\bmmap(ed|ped)? over\b/g, "mmap-over").replace(/\bsystem calls?\b/g, "syscall")
      .replace(/\bwrite[ -]protect(ion|ed)?\b/g, "wp").replace(/\bunregister(s|ed|ing)\b/g, "unregister");
    const list = words(plain).filter((word) => !EMPTY.has(word)), asked = [...new Set(list)];
    if (asked.length === 0) return [];
    const scores = new Map();
    asked.forEach((word, place) => {
      const isLast = place === asked.length - 1, best = new Map();
      const ways = [...new Set(tokens(word))].map((token, at) => [token, at === 0 ? 1 : 0.9]);
      for (const other of SAME[stem(word)] || SAME[word] || []) ways.push([other, 0.7]);
      for (const [token, share] of ways) {
        for (const [seen, quality] of like(token, isLast)) {
          const pages = index.get(seen), about = [...pages.values()].filter((weight) => weight >= 1).length;
          const rarity = (/^\d/.test(seen) ? 0.75 : 1) * Math.log(1 + entries.length / Math.max(1, about));
          for (const [at, weight] of pages) best.set(at, Math.max(best.get(at) || 0, rarity * share * quality * weight));
        }
      }
      for (const [at, score] of best) {
        const sum = scores.get(at) || { score: 0, met: 0 };
        scores.set(at, { score: sum.score + score, met: sum.met + 1 });
      }
    });
    const total = ([at, { score, met }]) => score * KIND[entries[at].kind] * (0.25 + 0.75 * (met / asked.length) ** 2);
    const hits = [...scores].map((hit) => [total(hit), entries[hit[0]]]);
    hits.sort(([a, x], [b, y]) => b - a || x.title.length - y.title.length);
    return hits.slice(0, 12).map(([, entry]) => {
      const kind = ANCHORS.find(([anchor, word]) => entry.anchors.includes(`#${anchor}`) && list.some((w) => word.test(w)));
      return { ...entry, anchor: kind ? `#${kind[0]}` : "", part: kind ? ` › ${kind[0]}` : "" };
    });
  };
  const close = () => { found.hidden = true; input.setAttribute("aria-expanded", "false"); };
  const list = () => {
    const hits = find(input.value);
    found.replaceChildren(...hits.map((hit) => {
      const item = document.createElement("li"), link = document.createElement("a");
      const kind = document.createElement("b"), summary = document.createElement("small");
      link.href = root + hit.url + hit.anchor;
      kind.textContent = hit.kind;
      summary.textContent = hit.summary;
      link.append(kind, ` ${hit.title}${hit.part}`, summary);
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

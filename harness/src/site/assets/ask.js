// Ask: every kernel's answer to any recorded point of the grid; the address keeps what is asked.
"use strict";
(() => {
  const root = document.body.dataset.root;
  const form = document.querySelector("form.ask"), status = document.getElementById("status");
  const out = document.getElementById("answer"), fields = ASK.order.map((axis) => form.elements[axis]);
  const WAY_OUT = new Set(["rescue", "rescued", "unprotect", "closed"]);
  const points = ASK.points.map(([op, change, mode, probe, own, row]) => ({
    op, change, mode, ...Object.fromEntries(own.split(",").map((pair) => pair.split("="))),
    id: own ? `${ASK.probes[probe][0]}[${own}]` : ASK.probes[probe][0], probe, seen: ASK.rows[row],
  }));
  const isSilent = (seen) => seen < 0 || ASK.said[seen].some(([key]) => key === "silent");
  const sentences = (seen) => ASK.said[seen].map(([key, text]) => ({ key, text: ASK.texts[text] }));
  const make = (name, text, ...more) => {
    const element = document.createElement(name);
    if (text) element.append(text);
    element.append(...more);
    return element;
  };
  const link = (url, text) => { const a = make("a", text); a.href = root + url; return a; };

  // What can be chosen: each field by those before it, so that no choice locks another.
  const takes = (axis, value, point) => value === "" ||
    (axis === "waiter" && ASK.kinds[value] ? ASK.kinds[value].includes(point.waiter) : point[axis] === value);
  const narrow = () => {
    let left = points;
    ASK.order.forEach((axis, at) => {
      const field = fields[at];
      for (const option of field.options) option.disabled = !left.some((point) => takes(axis, option.value, point));
      if (!field.value || field.selectedOptions[0].disabled) field.value = [...field.options].find((o) => !o.disabled)?.value ?? "";
      left = left.filter((point) => takes(axis, field.value, point));
      const isLess = ["part", "over", "how", "msg"].includes(axis);
      field.parentElement.hidden = isLess && !left.some((point) => point[axis] !== undefined);
    });
    return left;
  };

  // What a name means: the recorded kernels of a series, or one kernel for which each case is looked up.
  const names = (places) => places.map((at) => ASK.kernels[at].version).join(", ");
  const meant = (text) => {
    if (!text) return { at: [], says: "" };
    const isSeries = /^\d+\.\d+$/.test(text);
    const of = ASK.kernels.map((_, at) => at).filter((at) => ASK.kernels[at].series === text);
    if (isSeries && of.length) return { at: of, says: `Recorded of ${text}: ${names(of)}.`, series: true };
    const release = isSeries ? `${text}.0-0-unknown` : text;
    if (!LOOKUP.read(release)) return { at: [], says: `"${text}" is no kernel: give a series (6.12), a version, or what uname -r prints.`, bad: true };
    return { at: [], says: "", name: text, look: LOOKUP.resolver(release) };
  };
  // How sure the answers for one kernel are, and of how many cases where that differs.
  const howSure = (name, found) => {
    const notes = new Map();
    for (const answer of found) notes.set(LOOKUP.note(answer), (notes.get(LOOKUP.note(answer)) ?? 0) + 1);
    const exact = found.find((answer) => LOOKUP.note(answer) === "");
    const say = (note) => note || `recorded as Linux ${names(exact.basis)}, this very build`;
    if (notes.size === 1) return `${name}: ${say([...notes.keys()][0])}.`;
    return `${name}: ${[...notes].map(([note, count]) => `of ${count} ${count === 1 ? "case" : "cases"}, ${say(note)}`).join("; ")}.`;
  };

  // Kernels on which every case went the same way stand together; one that gave no answer fits any.
  const spans = (cases) => {
    const found = [];
    ASK.kernels.forEach((_, kernel) => {
      const seen = cases.map((point) => (isSilent(point.seen[kernel]) ? null : point.seen[kernel]));
      if (seen.every((s) => s === null)) return;
      const both = (span) => span.seen.map((s, i) => [s, seen[i]]).filter(([a, b]) => a !== null && b !== null);
      const span = found.findLast((s) => both(s).length > 0 && both(s).every(([a, b]) => a === b));
      if (!span) { found.push({ kernels: [kernel], seen }); return; }
      span.kernels.push(kernel);
      span.seen = span.seen.map((s, i) => s ?? seen[i]);
    });
    return found;
  };
  const range = (kernels) => {
    const runs = [];
    for (const at of kernels) {
      if (runs.length && runs.at(-1)[1] + 1 === at) runs.at(-1)[1] = at; else runs.push([at, at]);
    }
    const name = (at) => ASK.kernels[at].version;
    return runs.map(([a, b]) => (a === b ? name(a) : `${name(a)}${b === a + 1 ? ", " : " to "}${name(b)}`)).join(", ");
  };

  // The axes that decide which way cases go: as few as do, three at most; else all that vary.
  const deciding = (groups) => {
    const cases = groups.flatMap((group) => group.cases);
    const axes = ASK.order.filter((axis) => cases.some((point) => point[axis] !== cases[0][axis]));
    const decides = (names) => {
      const known = new Map();
      return groups.every((group) => group.cases.every((point) => {
        const key = names.map((name) => point[name]).join(" ");
        if (!known.has(key)) known.set(key, group);
        return known.get(key) === group;
      }));
    };
    let sets = [[]];
    for (let size = 1; size <= 3; size += 1) {
      sets = sets.flatMap((set) => axes.slice(axes.indexOf(set.at(-1)) + 1).map((axis) => [...set, axis]));
      const set = sets.find(decides);
      if (set) return { names: set, decides: true };
    }
    return { names: axes, decides: false };
  };
  // Rows of values as products that have these rows and no others: how=grow/shrink backing=anon.
  const cover = (rows) => {
    if (rows[0].length === 0) return [[]];
    const products = [];
    for (const first of new Set(rows.map((row) => row[0]))) {
      for (const rest of cover(rows.filter((row) => row[0] === first).map((row) => row.slice(1)))) {
        const same = products.find((p) => JSON.stringify(p.slice(1)) === JSON.stringify(rest));
        if (same) same[0].push(first); else products.push([[first], ...rest]);
      }
    }
    return products;
  };
  const labels = (cases, names) => cover(cases.map((point) => names.map((name) => point[name] ?? null)))
    .map((product) => names.map((name, i) => [name, product[i].filter((value) => value !== null)])
      .filter(([, values]) => values.length).map(([name, values]) => `${name}=${values.join("/")}`).join(" ") || "the others");

  const said = (clauses) => {
    const parts = [], seen = clauses.filter((c) => !WAY_OUT.has(c.key)), way = clauses.filter((c) => WAY_OUT.has(c.key));
    if (seen.length) { const list = make("ul", "", ...seen.map((c) => make("li", c.text))); list.className = "said"; parts.push(list); }
    if (way.length) {
      const card = make("div", "", make("p", "", make("b", "The way out. "), way.map((c) => c.text).join(" ")));
      card.className = "card way";
      parts.push(card);
    }
    return parts;
  };
  const spanCard = (span, cases, chosen) => {
    const groups = [];
    span.seen.forEach((seen, at) => {
      if (seen === null) return;
      const group = groups.find((g) => g.seen === seen);
      if (group) group.cases.push(cases[at]); else groups.push({ seen, cases: [cases[at]] });
    });
    groups.sort((a, b) => b.cases.length - a.cases.length);
    const told = groups.map((group) => sentences(group.seen)), key = (c) => `${c.key} ${c.text}`;
    const everywhere = (c) => told.every((list) => list.some((other) => key(other) === key(c)));
    const own = chosen.filter((at) => span.kernels.includes(at)), others = span.kernels.filter((at) => !own.includes(at));
    const card = make("section", "", make("h2", `Linux ${span.name ?? range(own.length ? own : span.kernels)}`));
    card.className = "card";
    if (span.note) card.append(make("p", span.note));
    if (own.length && others.length) card.append(make("p", `The same on ${range(others)}.`));
    card.append(...said(told[0].filter(everywhere)));
    if (groups.length > 1) {
      const by = deciding(groups);
      card.append(make("p", "", make("b", by.decides ? `What differs by ${by.names.join(" and ")}:` : "What differs:")));
      const body = make("tbody"), way = (list) => list.filter((c) => !everywhere(c) && WAY_OUT.has(c.key));
      const has = told.some((list) => way(list).length);
      const none = told[0].filter(everywhere).some((c) => WAY_OUT.has(c.key)) ? "as above" : "none needed";
      const more = told.some((list) => list.some((c) => !everywhere(c) && !WAY_OUT.has(c.key)));
      groups.forEach((group, at) => {
        const head = make("th");
        labels(group.cases, by.names).forEach((label, i) => head.append(...(i ? [make("br")] : []), label));
        head.scope = "row";
        const rest = told[at].filter((c) => !everywhere(c) && !WAY_OUT.has(c.key));
        const cells = more ? [make("td", rest.map((c) => c.text).join(" ") || "as above")] : [];
        if (has) {
          cells.push(make("td", way(told[at]).map((c) => c.text).join(" ") || none));
          cells.at(-1).className = "y";
        }
        body.append(make("tr", "", head, ...cells));
      });
      const heads = ["Where", ...(more ? ["What happens"] : []), ...(has ? ["The way out"] : [])].map((text) => {
        const th = make("th", text); th.scope = "col"; return th;
      });
      const table = make("table", "", make("thead", "", make("tr", "", ...heads)), body), wrap = make("div", "", table);
      table.className = "answers"; wrap.className = "scroll"; wrap.tabIndex = 0;
      card.append(wrap);
    }
    return card;
  };
  const silent = (cases) => {
    const reasons = new Map();
    ASK.kernels.forEach((_, kernel) => {
      for (const point of cases.filter((p) => isSilent(p.seen[kernel]))) {
        const seen = point.seen[kernel], why = seen < 0 ? "not asked" : sentences(seen).find((c) => c.key === "silent").text;
        if (!reasons.has(why)) reasons.set(why, new Set());
        reasons.get(why).add(kernel);
      }
    });
    return [...reasons].map(([why, kernels]) => {
      const line = make("p", `No answer on ${range([...kernels])}: ${why}.`); line.className = "soft"; return line;
    });
  };
  const repeat = (cases, which) => {
    const series = ASK.kernels[which.at[0] ?? ASK.kernels.length - 1].series, details = make("details");
    const options = ASK.order.filter((axis, at) => fields[at].value).map((axis) => {
      const value = form.elements[axis].value;
      return `--${axis} ${axis === "waiter" && ASK.kinds[value] ? ASK.kinds[value].join(",") : value}`;
    });
    const lines = [`uffd-conform ask ${options.join(" ")} -k ${which.name ?? series}`, `uffd-conform run -k ${series} '${cases[0].id}'`];
    const list = make("ul", "", ...cases.slice(0, 40).map((point) => make("li", "", make("code", point.id))));
    const probes = [...new Set(cases.map((point) => point.probe))].map((at) => ASK.probes[at]);
    details.append(make("summary", cases.length === 1 ? "The case" : `The ${cases.length} cases`), list);
    if (cases.length > 40) details.append(make("p", `and ${cases.length - 40} more`));
    const answer = ASK.answers.find(([op, change]) => op === form.elements.op.value && change === form.elements.change.value);
    const seeing = make("p", "Probes: ");
    probes.forEach(([name, url], at) => seeing.append(at ? ", " : "", link(url, name)));
    if (answer) seeing.append(". ", link(answer[2], "All waiters on one page"), ".");
    return [make("h2", "Repeat it"), make("pre", lines.join("\n")), seeing, details];
  };
  const show = () => {
    const cases = narrow(), which = meant(LOOKUP.trim(form.elements.kernel.value));
    if (cases.length === 0) { status.textContent = "No recorded case has all of this."; out.replaceChildren(); return; }
    const answer = (point) => which.look((at) => (isSilent(point.seen[at]) ? null : point.seen[at]));
    const looked = which.look ? cases.map(answer) : [];
    if (which.look) {
      which.at = [...new Set(looked.flatMap((answer) => answer.basis))];
      which.says = howSure(which.name, looked);
    }
    const found = spans(cases), isOwn = (span) => span.kernels.some((at) => which.at.includes(at));
    found.sort((a, b) => isOwn(b) - isOwn(a));
    // What is recorded of the very build stands on its own card already.
    if (looked.some((answer) => answer.value !== null && LOOKUP.note(answer) !== "")) {
      found.unshift({ name: which.name, note: which.says, kernels: [], seen: looked.map((answer) => answer.value) });
    }
    const agree = which.series && which.at.length > 1 ? (found.filter(isOwn).length === 1 ? " They agree." : " They differ.") : "";
    const deaf = which.series && which.at.length > 0 && !found.some(isOwn) ? " It gave no answer to this." : "";
    status.textContent = `${cases.length} recorded ${cases.length === 1 ? "case" : "cases"}. ${which.says}${deaf || agree}`;
    status.classList.toggle("n", Boolean(which.bad));
    out.replaceChildren(...found.map((span) => spanCard(span, cases, which.at)), ...silent(cases), ...repeat(cases, which));
  };
  const keep = () => {
    const values = [...new FormData(form)].filter(([, value]) => value.trim() !== "");
    history.replaceState(null, "", `#${new URLSearchParams(values)}`);
  };
  const restore = () => {
    const want = new URLSearchParams(location.hash.slice(1));
    if (!want.has("op")) { want.set("op", "copy"); want.set("change", "mmap-over"); want.set("waiter", "vcpu"); }
    for (const field of [...fields, form.elements.kernel]) field.value = want.get(field.name) ?? "";
  };
  form.addEventListener("input", () => { show(); keep(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("copy").addEventListener("click", async (event) => {
    keep();
    const say = (text) => { event.target.textContent = text; setTimeout(() => { event.target.textContent = "Copy link"; }, 2000); };
    try { await navigator.clipboard.writeText(location.href); say("Copied"); } catch { say("Copy the address"); }
  });
  addEventListener("hashchange", () => { if (location.hash !== "#all") { restore(); show(); } });
  form.hidden = false;
  if (location.hash === "#all") document.getElementById("all").scrollIntoView();
  restore();
  show();
})();

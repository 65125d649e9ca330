// Which recorded kernels speak for a release, and how sure that is: the library's rules, with its words.
"use strict";
const LOOKUP = (() => {
  const { words, machines, certainty, why } = ASK.lookup;
  const FINAL = 65535; // in the place of a candidate's number, and the highest that any number can be
  const [CARRIES_BACK, FOLLOWS, DEBIAN, UBUNTU, LOCAL] = ["carries back", "follows", "Debian", "Ubuntu", "local"];
  const trim = (text) => text.replace(/^[ \t\n\f\r]+|[ \t\n\f\r]+$/g, "");
  const number = (digits) => (Number(digits) <= FINAL ? Number(digits) : null);

  // A release string, read as `form.rs` reads it.
  const versionOf = (text) => {
    const found = text.match(/^(\d+)\.(\d+)(?:\.(\d+))?(?:[~-]rc(\d+))?/);
    const version = found && [found[1], found[2], found[3] ?? 0, found[4] ?? FINAL].map(number);
    return version && !version.includes(null) ? version : null;
  };
  const suffixOf = (text) => {
    const numbers = text.match(/^[\d.]*/)[0], rest = text.slice(numbers.length).replace(/^[~-]rc\d*/, "");
    return numbers.endsWith(".") || numbers.includes("..") || /^[A-Za-z0-9]/.test(rest) ? null : rest;
  };
  const builderOf = (patch, rest) => {
    const all = rest.split(/[-.+~_]/).filter(Boolean), last = all.at(-1) ?? "";
    const has = (word) => all.includes(word), hasAny = (list) => list.some(has);
    const begins = (head) => all.some((word) => word.startsWith(head) && /^\d/.test(word.slice(head.length)));
    const numbered = /^-\d/.test(rest);
    if (has("elrepo") || begins("amzn")) return FOLLOWS;
    if (begins("el") || all.some((word) => word.endsWith("uek"))) return CARRIES_BACK;
    if (begins("fc")) return FOLLOWS;
    if (begins("android") || has("gki")) return CARRIES_BACK;
    if (words.downstream.some(begins)) return CARRIES_BACK;
    // Enterprise builds are numbered 150600.23.25, 160000.5, 122.234; Ubuntu's of upstream's tree 061200.
    if (last === "default" || begins("lp15") || /^-\d{6,}\./.test(rest)) {
      const simple = rest.replace(/^-*/, "").match(/^(\d+)(?:-|$)/);
      return simple && Number(simple[1]) < 256 && patch > 0 ? FOLLOWS : CARRIES_BACK;
    }
    if (begins("deb") || begins("bpo") || has("bpo")) return DEBIAN;
    if (numbered && patch === 0 && hasAny(words.ubuntu)) return UBUNTU;
    if (numbered && words.debian.includes(last)) return DEBIAN;
    return hasAny(words.followers) || begins("arch") || begins("zen") ? FOLLOWS : LOCAL;
  };
  const read = (given) => {
    const text = trim(given);
    if (text.length > 128 || !/^[A-Za-z0-9._+~-]*$/.test(text)) return null;
    const version = versionOf(text), rest = suffixOf(text);
    if (!version || rest === null) return null;
    const builder = builderOf(version[2], rest), zero = version[2] === 0;
    const seriesOnly = ([UBUNTU, DEBIAN].includes(builder) && zero && !rest.startsWith("+")) ||
      (builder === LOCAL && zero && version[3] === FINAL && /^-\d/.test(rest));
    const machine = new Map(machines).get(text.split(/[-.+]/).at(-1)) ?? null;
    return { text, version, builder, seriesOnly, machine };
  };

  // The versions that it can be built from, by recorded builds of Debian's where it is one; see `form.rs`.
  const order = (a, b) => a.map((n, i) => n - b[i]).find((n) => n !== 0) ?? 0;
  const buildOf = (text) => {
    const found = text.match(/^([^-]*)-(\d+)(?:-|$)/);
    return found && number(found[2]) !== null ? { version: found[1], build: Number(found[2]) } : null;
  };
  const rangeOf = (form) => {
    if (form.builder === CARRIES_BACK) return null;
    if (!form.seriesOnly) return [form.version, form.version];
    const [major, minor] = form.version, whole = [[major, minor, 0, FINAL], [major, minor, FINAL, FINAL]];
    const own = form.builder === DEBIAN ? buildOf(form.text) : null;
    if (!own) return whole;
    const others = ASK.kernels.flatMap((kernel) => {
      const other = buildOf(kernel.release);
      const same = other?.version === own.version && read(kernel.release)?.builder === DEBIAN;
      return same ? [{ build: other.build, number: kernel.number }] : [];
    });
    const below = Math.max(...others.map((o) => o.build).filter((build) => build <= own.build));
    const above = Math.min(...others.map((o) => o.build).filter((build) => build >= own.build));
    const low = others.find((o) => o.build === below)?.number ?? whole[0];
    const high = others.findLast((o) => o.build === above)?.number ?? whole[1];
    return order(low, high) <= 0 ? [low, high] : whole;
  };

  // Answers questions for a release; `at` has the answer of a recorded kernel by its place, or null. As
  // `Dataset::resolve` does, and `near.rs`.
  const unknown = (key, basis = []) => ({ value: null, certainty: certainty.unknown, why: why[key], basis });
  const resolver = (given) => {
    const form = read(given);
    if (!form) return () => unknown("NOT_A_RELEASE");
    const here = ASK.kernels.map((_, place) => place)
      .filter((place) => form.machine === null || ASK.kernels[place].machine === form.machine);
    const exact = here.find((place) => ASK.kernels[place].release === form.text), range = rangeOf(form);
    return (at) => {
      if (exact !== undefined && at(exact) !== null) {
        return { value: at(exact), certainty: certainty.exact, why: null, basis: [exact] };
      }
      if (!here.length) return unknown("MACHINE");
      if (!range) return unknown("CARRIED_BACK");
      const answered = here.filter((place) => at(place) !== null), [low, high] = range;
      const than = (bound) => (place) => order(ASK.kernels[place].number, bound);
      const below = answered.findLast((place) => than(low)(place) <= 0);
      const above = answered.find((place) => than(high)(place) >= 0);
      const inside = answered.filter((place) => than(low)(place) > 0 && than(high)(place) < 0);
      if (below === undefined && inside.length) return unknown("PERHAPS_OLDER", inside);
      if (above === undefined && inside.length) return unknown("PERHAPS_NEWER", inside);
      if (below === undefined && above === undefined) return unknown("NOT_ASKED");
      if (above === undefined) return unknown("NEWER", [below]);
      if (below === undefined) return unknown("OLDER", [above]);
      const series = (number) => number.slice(0, 2).join(), older = series(ASK.kernels[below].number);
      // All of the older one's series speak, unless it is the release's own.
      const first = older === series(low) ? below
        : answered.find((place) => than(low)(place) <= 0 && series(ASK.kernels[place].number) === older);
      const basis = answered.filter((place) => place >= Math.min(first, above) && place <= Math.max(below, above));
      const value = at(basis[0]);
      if (basis.some((place) => at(place) !== value)) return unknown("DISAGREE", basis);
      const within = basis.every((place) => series(ASK.kernels[place].number) === series(low));
      return { value, certainty: within ? certainty.within : certainty.between, why: null, basis };
    };
  };
  // How sure an answer is, as `uffd-conform ask` says it; empty for one that is recorded.
  const note = (answer) => {
    const versions = answer.basis.map((place) => ASK.kernels[place].version).join(", ");
    if (answer.certainty === certainty.exact) return "";
    const rests = answer.basis.length === 1 ? `as ${versions}` : `${versions} agree`;
    if (answer.why === null) return `not recorded itself; ${answer.certainty}: ${rests}`;
    return `not known: ${answer.why}${versions && `; the nearest recorded: ${versions}`}`;
  };
  return { trim, read, resolver, note };
})();

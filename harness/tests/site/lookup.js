// Answers lines of "release, case" between a tab by the site's scripts, whose paths are the arguments: the
// place of the value, certainty, reason, first and last kernel, and the sentence, a line each.
"use strict";
const { readFileSync } = require("node:fs");
const scripts = process.argv.slice(2).map((path) => readFileSync(path, "utf8"));
const { ASK, LOOKUP } = new Function(`${scripts.join("\n")}; return { ASK, LOOKUP };`)();
const isSilent = (seen) => seen < 0 || ASK.said[seen].some(([key]) => key === "silent");
const rows = new Map(ASK.points.map(([, , , probe, own, row]) =>
  [own ? `${ASK.probes[probe][0]}[${own}]` : ASK.probes[probe][0], ASK.rows[row]]));
const resolvers = new Map();
const lines = readFileSync(0, "utf8").split("\n").slice(0, -1).map((line) => {
  const [release, id] = line.split("\t"), row = rows.get(id);
  if (!resolvers.has(release)) resolvers.set(release, LOOKUP.resolver(release));
  const answer = resolvers.get(release)((at) => (isSilent(row[at]) ? null : row[at]));
  const name = (place) => ASK.kernels[place]?.release ?? "-";
  return [answer.value ?? "-", answer.certainty, answer.why ?? "-", name(answer.basis[0]),
    name(answer.basis.at(-1)), LOOKUP.note(answer)].join("\t");
});
process.stdout.write(lines.map((line) => `${line}\n`).join(""));

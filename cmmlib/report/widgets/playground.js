// The method under the reader's hands: candidates, CMM, weights, the ensemble and prior matching, computed here.
const data = dataOf("playground");
const root = around.querySelector(".cmm-playground");

// ---------------------------------------------------------------- the method, in a process of its own

// One function without anything from outside, so that it can be sent to a worker as text.
const method = () => {
  let m = null; // what does not change
  let newest = 0; // the reader's last move: what was asked before it is abandoned
  const OVERTAKEN = Symbol("overtaken");

  // Lets messages in now and then, and ends what a newer move has overtaken.
  const breathing = (move) => {
    let before = performance.now();
    return async () => {
      if (performance.now() - before < 40) return;
      await new Promise((done) => { setTimeout(done); });
      before = performance.now();
      if (move !== newest) throw OVERTAKEN;
    };
  };
  const forEach = async (n, breath, one) => {
    for (let i = 0; i < n; i++) {
      if (i % 100 === 0) await breath();
      one(i);
    }
  };

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const unpacked = ({ codes, low, step, rows }) => {
    const [q, a, s] = [bytes(codes), new Float32Array(bytes(low).buffer), new Float32Array(bytes(step).buffer)];
    const width = a.length, out = new Float32Array(rows * width);
    for (let r = 0; r < rows; r++) normalised(out, r, width, (d) => a[d] + s[d] * q[r * width + d]);
    return out;
  };
  const normalised = (out, r, width, value) => {
    let length = 0;
    for (let d = 0; d < width; d++) length += (out[r * width + d] = value(d)) ** 2;
    length = Math.sqrt(length);
    for (let d = 0; d < width; d++) out[r * width + d] /= length;
  };
  // x [N, D] times y [R, D], as [N, R]; four rows of y at a time, which a processor adds up side by side
  const products = async (x, y, width, breath, told = () => {}) => {
    const n = x.length / width, r = y.length / width, out = new Float32Array(n * r);
    await forEach(n, breath, (i) => {
      if (i % 200 === 0) told(i / n);
      for (let j = 0; j < r; j += 4) {
        const few = Math.min(4, r - j), b1 = few > 1 ? width : 0, b2 = few > 2 ? 2 * width : 0, b3 = few > 3 ? 3 * width : 0;
        let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        for (let d = 0, a = i * width, b = j * width; d < width; d++, a++, b++) {
          const own = x[a];
          s0 += own * y[b];
          s1 += own * y[b + b1];
          s2 += own * y[b + b2];
          s3 += own * y[b + b3];
        }
        const at = i * r + j;
        out[at] = s0;
        if (few > 1) out[at + 1] = s1;
        if (few > 2) out[at + 2] = s2;
        if (few > 3) out[at + 3] = s3;
      }
    });
    return out;
  };

  const start = (given) => {
    const images = unpacked(given.images), candidates = unpacked(given.candidates);
    const width = images.length / given.images.rows;
    m = { ...given, width, C: given.names.length, N: given.images.rows, images, vectors: candidates, T: given.candidates.rows,
      labels: new Uint16Array(bytes(given.labels).buffer), base: unpacked(given.base) };
    m.templates = m.T - m.described;
  };

  // classifier [C, D] of weights; a class's vector is the weighted sum of its candidates, of length one
  const combined = (weights) => {
    const sums = new Float64Array(m.C * m.width), out = new Float32Array(m.C * m.width);
    for (let k = 0; k < m.T; k++) {
      if (!weights[k]) continue;
      for (let d = 0, a = m.classes[k] * m.width, b = k * m.width; d < m.width; d++, a++, b++) sums[a] += weights[k] * m.vectors[b];
    }
    for (let c = 0; c < m.C; c++) normalised(out, c, m.width, (d) => sums[c * m.width + d]);
    return out;
  };

  // which candidates take part
  const active = ({ templates, described }) => {
    const asked = new Set(m.suspects.slice(0, described));
    return Uint8Array.from({ length: m.T }, (_, k) => (k < m.templates ? templates[Math.floor(k / m.C)] : asked.has(m.classes[k])) ? 1 : 0);
  };

  // CMM of every candidate: its mean margin over all images, weighted with the probability of its class
  const candidateCmm = async (on, others, breath) => {
    const mass = new Float64Array(m.T), total = new Float64Array(m.T), { C, T, scale } = m;
    const against = await products(m.images, others, m.width, breath), e = new Float64Array(C), list = [...on.keys()].filter((k) => on[k]);
    await forEach(m.N, breath, (n) => {
      let winner = 0, top = -Infinity, second = -Infinity;
      for (let c = 0; c < C; c++) {
        const s = against[n * C + c];
        if (s > top) [second, top, winner] = [top, s, c];
        else if (s > second) second = s;
      }
      let all = 0, behind = 0;
      for (let c = 0; c < C; c++) {
        all += e[c] = Math.exp(scale * (against[n * C + c] - top));
        if (c !== winner) behind += Math.exp(scale * (against[n * C + c] - second));
      }
      for (const k of list) {
        const c = m.classes[k], own = c === winner;
        const margin = m.similarity[n * T + k] - (own ? second : top), rest = own ? behind : all - e[c];
        const q = 1 / (1 + rest * Math.exp(-scale * margin));
        mass[k] += q;
        total[k] += q * margin;
      }
    });
    return total.map((sum, k) => sum / mass[k]);
  };

  // softmax of CMM within each class, each group of equal mass before; far below the best is cut
  const weighed = (on, cmm, temperature, balanced) => {
    const weights = new Float64Array(m.T);
    const groups = Array.from({ length: m.C }, () => [[], []]);
    for (let k = 0; k < m.T; k++) if (on[k]) groups[m.classes[k]][k < m.templates ? 0 : 1].push(k);
    for (const pair of groups) {
      const all = pair.flat(), best = Math.max(...all.map((k) => cmm[k]));
      const mean = all.reduce((sum, k) => sum + cmm[k], 0) / all.length;
      const deviation = Math.max(1e-12, Math.sqrt(all.reduce((sum, k) => sum + (cmm[k] - mean) ** 2, 0) / all.length));
      let sum = 0;
      for (const group of pair) for (const k of group) {
        if (cmm[k] < best - m.cut * deviation) continue;
        sum += weights[k] = Math.exp((cmm[k] - best) / (temperature * deviation)) / (balanced ? group.length : 1);
      }
      for (const k of all) weights[k] /= sum;
    }
    return weights;
  };
  const equal = (on, balanced) => {
    const weights = new Float64Array(m.T), sizes = new Map();
    const key = (k) => m.classes[k] * 2 + (balanced && k >= m.templates ? 1 : 0);
    for (let k = 0; k < m.T; k++) if (on[k]) sizes.set(key(k), (sizes.get(key(k)) ?? 0) + 1);
    for (let k = 0; k < m.T; k++) if (on[k]) weights[k] = 1 / sizes.get(key(k));
    return weights;
  };

  // ---- prior matching: biases at which all classes have the same mean probability, by Newton's steps as in `match_prior`

  // probabilities of an image's classes, into p; the log of the sum of its exponentials comes back
  const probabilities = (similarity, bias, n, p) => {
    const { C, scale } = m;
    let top = -Infinity, sum = 0;
    for (let c = 0; c < C; c++) top = Math.max(top, (p[c] = scale * similarity[n * C + c] + bias[c]));
    for (let c = 0; c < C; c++) sum += p[c] = Math.exp(p[c] - top);
    for (let c = 0; c < C; c++) p[c] /= sum;
    return top + Math.log(sum);
  };
  const mean = (values) => values.reduce((a, b) => a + b) / values.length;
  const pointAt = async (similarity, bias, breath) => {
    const { N, C } = m, share = new Float64Array(C), p = new Float64Array(C);
    let loss = 0;
    await forEach(N, breath, (n) => {
      loss += probabilities(similarity, bias, n, p);
      for (let c = 0; c < C; c++) share[c] += p[c];
    });
    const gap = share.map((value) => Math.log(Math.max(value, 1e-300) / N * C));
    return { bias, gap, loss: loss / N - mean(bias), width: Math.max(...gap) - Math.min(...gap) };
  };
  // what the share of a class has in common with every other, row by row; what is next to nothing is left out: this
  // directs the steps, and does not say where they end
  const overlapAt = async (similarity, bias, breath) => {
    const { N, C } = m, overlap = new Float64Array(C * C), share = new Float64Array(C), p = new Float64Array(C), some = new Int32Array(C);
    await forEach(N, breath, (n) => {
      probabilities(similarity, bias, n, p);
      let many = 0;
      for (let c = 0; c < C; c++) {
        share[c] += p[c];
        if (p[c] > 1e-5) some[many++] = c;
      }
      for (let i = 0; i < many; i++) for (let j = 0, c = some[i], own = p[c]; j <= i; j++) overlap[c * C + some[j]] += own * p[some[j]];
    });
    for (let c = 0; c < C; c++) for (let d = 0; d < c; d++) overlap[d * C + c] = overlap[c * C + d];
    return overlap.map((value, at) => value / Math.max(share[Math.floor(at / C)], 1e-300));
  };
  // Gauss's elimination with the largest pivot of each column
  const solved = (matrix, right) => {
    const n = right.length, a = matrix.slice(), x = right.slice();
    for (let i = 0; i < n; i++) {
      let pivot = i;
      for (let r = i + 1; r < n; r++) if (Math.abs(a[r * n + i]) > Math.abs(a[pivot * n + i])) pivot = r;
      if (pivot !== i) {
        for (let c = i; c < n; c++) [a[i * n + c], a[pivot * n + c]] = [a[pivot * n + c], a[i * n + c]];
        [x[i], x[pivot]] = [x[pivot], x[i]];
      }
      for (let r = i + 1; r < n; r++) {
        const times = a[r * n + i] / a[i * n + i];
        if (!times) continue;
        for (let c = i; c < n; c++) a[r * n + c] -= times * a[i * n + c];
        x[r] -= times * x[i];
      }
    }
    for (let i = n - 1; i >= 0; i--) {
      for (let c = i + 1; c < n; c++) x[i] -= a[i * n + c] * x[c];
      x[i] /= a[i * n + i];
    }
    return x;
  };
  const newton = (gap, overlap, damping) => {
    const C = gap.length, matrix = overlap.map((value, at) => 1 / C - value + (at % (C + 1) ? 0 : 1 + damping));
    let step = solved(matrix, gap.map((value) => 1 - Math.exp(-value)));
    if (!step.every(Number.isFinite)) step = gap; // Sinkhorn's
    const middle = mean(step), longest = Math.max(m.matching.longest, ...step.map((value) => Math.abs(value - middle)));
    return step.map((value) => (value - middle) * (m.matching.longest / longest));
  };
  const matched = async (similarity, breath) => {
    const { tolerance, max_rounds, damping: first, noise, slow, grid } = m.matching;
    let here = await pointAt(similarity, new Float64Array(m.C), breath), damping = 0, fresh = true;
    let overlap = await overlapAt(similarity, here.bias, breath);
    for (let round = 1; here.width >= tolerance && round < max_rounds; round++) {
      const step = newton(here.gap, overlap, damping), before = here.width;
      const there = await pointAt(similarity, here.bias.map((value, c) => value - step[c]), breath);
      if (there.loss < here.loss - noise || there.width < before) {
        [here, damping, fresh] = [there, damping / 4 > first / 16 ? damping / 4 : 0, false];
      } else if (fresh) damping = Math.max(4 * damping, first);
      if (!fresh && here.width >= Math.max(tolerance, slow * before)) [overlap, fresh] = [await overlapAt(similarity, here.bias, breath), true];
    }
    return here.bias.map((value) => Math.round(value / grid) * grid); // copies of a class then tie exactly
  };

  const measured = async (similarity, bias, breath) => {
    const { N, C, scale, labels } = m, right = new Float64Array(C), count = new Float64Array(C), confusion = new Uint32Array(C * C);
    const mass = new Float64Array(C), total = new Float64Array(C), e = new Float64Array(C);
    await forEach(N, breath, (n) => {
      let best = -Infinity, predicted = 0, top = -Infinity, second = -Infinity, winner = 0, sum = 0;
      for (let c = 0; c < C; c++) {
        const s = similarity[n * C + c], logit = scale * s + bias[c];
        if (logit > best) [best, predicted] = [logit, c];
        if (s > top) [second, top, winner] = [top, s, c];
        else if (s > second) second = s;
      }
      for (let c = 0; c < C; c++) sum += e[c] = Math.exp(scale * (similarity[n * C + c] - top));
      for (let c = 0; c < C; c++) {
        const q = e[c] / sum;
        mass[c] += q;
        total[c] += q * (similarity[n * C + c] - (c === winner ? second : top));
      }
      count[labels[n]]++;
      confusion[labels[n] * C + predicted]++;
      if (predicted === labels[n]) right[predicted]++;
    });
    const accuracy = [...right].map((hits, c) => (count[c] ? hits / count[c] : null));
    return { accuracy, overall: right.reduce((a, b) => a + b) / N, cmm: [...total].map((sum, c) => sum / mass[c]), confusion, count: [...count] };
  };

  // CMM against the mean of the chosen templates: only they change it, so it is kept while other controls move
  let first = { key: null };
  const firstCmm = async (on, settings, breath) => {
    const key = JSON.stringify(settings.templates), own = (k) => k < m.templates && on[k];
    if (first.key !== key) {
      const others = combined(equal(on.map((_, k) => (own(k) ? 1 : 0)), false));
      first = { key, cmm: await candidateCmm(on.map((_, k) => (own(k) || k >= m.templates ? 1 : 0)), others, breath) };
    }
    return first.cmm;
  };
  let kept = { key: null };
  const classifierOf = async (settings, breath) => {
    const { strength, ...texts } = settings, key = JSON.stringify(texts);
    if (kept.key === key) return kept;
    const on = active(settings);
    let weights = equal(on, settings.balanced);
    if (settings.weights) {
      for (let round = 0; round < m.rounds; round++) {
        const cmm = round ? await candidateCmm(on, combined(weights), breath) : await firstCmm(on, settings, breath);
        weights = weighed(on, cmm, settings.temperature, settings.balanced);
      }
    }
    kept = { key, weights, similarity: await products(m.images, combined(weights), m.width, breath), bias: null };
    return kept;
  };

  const begin = async (given) => {
    const breath = async () => {};
    start(given);
    postMessage({ kind: "base", ...await measured(await products(m.images, m.base, m.width, breath), new Float64Array(m.C), breath) });
    m.similarity = await products(m.images, m.vectors, m.width, breath, (share) => postMessage({ kind: "progress", share }));
    postMessage({ kind: "started" });
  };
  const answer = async (settings, move) => {
    const breath = breathing(move), made = await classifierOf(settings, breath);
    if (settings.strength && !made.bias) made.bias = await matched(made.similarity, breath);
    const bias = made.bias ? made.bias.map((value) => settings.strength * value) : new Float64Array(m.C);
    postMessage({ kind: "now", settings, move, weights: made.weights, ...await measured(made.similarity, bias, breath) });
  };
  onmessage = ({ data: { start: given, settings, move } }) => {
    newest = move;
    const done = given ? begin(given) : settings ? answer(settings, move) : Promise.resolve();
    done.catch((error) => {
      if (error === OVERTAKEN) postMessage({ kind: "overtaken" });
      else setTimeout(() => { throw error; }); // so that the page learns of it
    });
  };
};

// ---------------------------------------------------------------- what the reader moves

const run = { templates: data.prompts.map(() => true), described: data.n_described, temperature: data.temperature, balanced: true, weights: true, strength: 0 };
let settings = structuredClone(run), base = null, now = null, started = false, moves = 0, chosen = 0;

const worker = new Worker(URL.createObjectURL(new Blob([`(${method})()`], { type: "text/javascript" })));
const said = element("p", { className: "cmm-said", role: "status", textContent: "Reading the embeddings …" });
const results = element("div", { className: "cmm-columns" }); // all numbers: dim while they are those of an earlier move
const dim = (busy) => results.setAttribute("aria-busy", String(busy));
const ask = () => {
  if (!started) return;
  root.dataset.state = "computing";
  said.textContent = "Computing …";
  worker.postMessage({ settings: structuredClone(settings), move: moves });
};
worker.onerror = () => { said.textContent = "This browser does not let the page compute: open the book through a web server."; };
worker.onmessage = ({ data: answer }) => {
  if (answer.kind === "progress") { said.textContent = `Comparing every image with every text: ${percent(answer.share)} …`; return; }
  if (answer.kind === "overtaken") { root.dataset.overtaken = Number(root.dataset.overtaken ?? 0) + 1; return; }
  if (answer.kind === "base") { base = answer; return; }
  if (answer.kind === "started") { started = true; ask(); return; }
  if (answer.move !== moves) return; // of settings that the reader has left
  if (!now) choose(changedMost(answer.accuracy, 1)[0]?.c ?? 0);
  now = answer;
  show();
  dim(false);
  root.dataset.state = "ready";
};
// classes whose accuracy rose (sign 1) or fell (sign -1), the largest change first
const changedMost = (accuracy, sign) =>
  accuracy.map((value, c) => ({ c, before: base.accuracy[c], after: value, change: sign * (value - base.accuracy[c]) }))
    .filter(({ before, change }) => before !== null && change > 0).sort((a, b) => b.change - a.change || a.c - b.c);
const choose = (c) => { chosen = c; classSelect.value = String(c); };

let timer = null;
const changed = () => {
  moves += 1;
  if (started) root.dataset.state = "moved";
  dim(true);
  worker.postMessage({ move: moves }); // what it computes is no longer wanted
  clearTimeout(timer);
  timer = setTimeout(ask, 150);
};
const controls = []; // each sets itself to the settings
const slider = (text, range, read, write, spelt = String) => {
  const input = element("input", { type: "range", ...range }), shown = element("span");
  const set = () => { input.value = read(); shown.textContent = `${text}: ${spelt(read())}`; input.setAttribute("aria-valuetext", spelt(read())); };
  input.addEventListener("input", () => { write(Number(input.value)); set(); changed(); });
  controls.push(set);
  return element("label", {}, shown, input);
};
const tick = (text, read, write) => {
  const input = element("input", { type: "checkbox" });
  const set = () => { input.checked = read(); };
  input.addEventListener("change", () => { write(input.checked); controls.forEach((again) => again()); changed(); });
  controls.push(set);
  return element("label", { className: "cmm-tick" }, input, element("span", { textContent: text }));
};

const templateTicks = data.prompts.map((prompt, p) =>
  tick(prompt, () => settings.templates[p], (value) => {
    settings.templates[p] = value;
    if (!settings.templates.some(Boolean)) settings.templates[p] = true; // one template stays
  }));
const button = (text, act) => {
  const made = element("button", { type: "button", textContent: text });
  made.addEventListener("click", () => { act(); controls.forEach((set) => set()); changed(); });
  return made;
};
const bar = element("div", { className: "cmm-bar" },
  ...(data.described ? [slider("suspects described", { min: 0, max: data.names.length, step: 1 }, () => settings.described, (value) => { settings.described = value; })] : []),
  slider("temperature of the weights", { min: -2, max: 1, step: 0.05 }, () => Math.log10(settings.temperature),
    (value) => { settings.temperature = Math.abs(value - Math.log10(run.temperature)) < 0.03 ? run.temperature : 10 ** value; }, () => settings.temperature.toPrecision(2)),
  slider("strength of prior matching", { min: 0, max: 1, step: 0.05 }, () => settings.strength, (value) => { settings.strength = value; }, (value) => value.toFixed(2)),
  tick("weights by CMM", () => settings.weights, (value) => { settings.weights = value; }),
  ...(data.described ? [tick("balance of templates and descriptions", () => settings.balanced, (value) => { settings.balanced = value; })] : []),
  button("as in the run", () => { settings = structuredClone(run); }));
const templates = element("details", {}, element("summary", { textContent: `templates (${data.prompts.length})` }),
  element("div", { className: "cmm-bar" }, button("all", () => { settings.templates.fill(true); }),
    button("only the first", () => { settings.templates.fill(false); settings.templates[0] = true; })),
  element("div", { className: "cmm-ticks" }, ...templateTicks));

// ---------------------------------------------------------------- what comes out

const worst = (accuracy, k) => {
  const known = accuracy.filter((value) => value !== null).sort((a, b) => a - b).slice(0, k);
  return known.reduce((a, b) => a + b, 0) / known.length;
};
const zero = (accuracy) => accuracy.filter((value) => value === 0).length;
const meanOf = (accuracy, classes) => classes.reduce((sum, c) => sum + accuracy[c], 0) / classes.length;
const numbers = element("tbody"), curves = element("div"), movers = element("div"), oneClass = element("div", { className: "cmm-card" });
const table = element("table", { className: "cmm-numbers" },
  element("thead", {}, element("tr", {}, ...["", "base prompt", "now", "change"].map((text) => element("th", { scope: "col", textContent: text })))), numbers);
const numberRow = (text, before, after, show, change, more = "") =>
  element("tr", {}, element("th", { scope: "row" }, text, ...(more ? [element("small", { textContent: ` (${more})` })] : [])), ...[show(before), show(after), change(after - before)].map((cell) => element("td", { textContent: cell })));
const classSelect = element("select", {}, ...data.names.map((name, c) => element("option", { value: c, textContent: name })));
classSelect.addEventListener("change", () => { chosen = Number(classSelect.value); showClass(); });
const headRow = (text) => element("tr", { className: "cmm-head" }, element("th", { scope: "rowgroup", colSpan: 4, textContent: text }));
const tied = (k, classes) => (classes.length > k ? `${classes.length} classes, as some tie` : "");
const share = (value) => percent(value, 1);

const curve = () => {
  const [width, height, left, bottom] = [380, 240, 40, 38], C = data.names.length;
  const x = (i) => left + (i / Math.max(1, C - 1)) * (width - left - 10), y = (a) => 10 + (1 - a) * (height - bottom - 10);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Accuracy of the classes from the worst to the best, with the base prompt and now; the table has the numbers." });
  for (const part of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(drawn("line", { x1: left, x2: width - 10, y1: y(part), y2: y(part), class: part ? "cmm-grid" : "cmm-axis" }),
      drawn("text", { x: left - 6, y: y(part) + 4, "text-anchor": "end" }, String(100 * part)));
  }
  const line = (accuracy, colour, dash) => {
    const known = accuracy.filter((value) => value !== null).sort((a, b) => a - b);
    return drawn("polyline", { points: known.map((a, i) => `${x(i)},${y(a)}`).join(" "), fill: "none", stroke: `var(${colour})`, "stroke-width": 2.5, "stroke-dasharray": dash });
  };
  svg.append(line(base.accuracy, "--before", "5 4"), line(now.accuracy, "--now", "none"),
    drawn("text", { x: (left + width) / 2, y: height - 6, "text-anchor": "middle" }, "classes, from the worst to the best"),
    drawn("text", { x: 11, y: height / 2 - 14, "text-anchor": "middle", transform: `rotate(-90 11 ${height / 2 - 14})` }, "accuracy, %"),
    drawn("text", { x: width - 14, y: y(0.13), "text-anchor": "end" }, "solid: now; dashed: base prompt"));
  return svg;
};

const show = () => {
  numbers.replaceChildren(
    numberRow("overall", base.overall, now.overall, share, points),
    numberRow("classes at zero", zero(base.accuracy), zero(now.accuracy), String, (v) => (v > 0 ? `+${v}` : v < 0 ? `−${-v}` : "0")),
    headRow("Chosen anew for each column"),
    ...data.ks.map((k) => numberRow(`worst ${k}`, worst(base.accuracy, k), worst(now.accuracy, k), share, points)),
    ...(data.base_worst.length ? [headRow("The same classes in both columns")] : []),
    ...data.base_worst.map(({ k, classes }) => numberRow(`base prompt's worst ${k}`, meanOf(base.accuracy, classes), meanOf(now.accuracy, classes), share, points, tied(k, classes))));
  Object.assign(root.dataset, { overall: now.overall, worst: worst(now.accuracy, data.ks.at(-1)), zero: zero(now.accuracy), base: base.overall });
  root.accuracy = now.accuracy;
  curves.replaceChildren(curve());
  showMovers();
  said.textContent = JSON.stringify(now.settings) === JSON.stringify(run) ? "These are the settings of the run." : "Settings of your own.";
  showClass();
};

// who gains and who loses: a click shows the class, as choosing it below does
const MOST = 5;
const moverTable = (accuracy, sign, verb) => {
  const all = changedMost(accuracy, sign), few = all.slice(0, MOST);
  const title = all.length > MOST ? `${verb} most: ${MOST} of the ${all.length} classes that ${verb}` : all.length ? `${verb}: ${all.length === 1 ? "1 class" : `${all.length} classes`}` : `no class ${verb}s`;
  const rows = few.map(({ c, before, after }) => {
    const open = element("button", { type: "button", textContent: data.names[c], value: c });
    open.addEventListener("click", () => { choose(c); showClass(); });
    return element("tr", {}, element("th", { scope: "row" }, open), element("td", { textContent: `${percent(before)} → ${percent(after)}` }));
  });
  return element("table", { className: "cmm-numbers cmm-names" }, element("caption", { textContent: title[0].toUpperCase() + title.slice(1) }), element("tbody", {}, ...rows));
};
const showMovers = () => {
  const held = [...movers.querySelectorAll("button")].indexOf(document.activeElement), value = document.activeElement?.value;
  movers.replaceChildren(moverTable(now.accuracy, 1, "gain"), moverTable(now.accuracy, -1, "lose"));
  if (held < 0) return; // who reads the list by keyboard stays in it
  const open = [...movers.querySelectorAll("button")];
  (open.find((one) => one.value === value) ?? open[held] ?? open.at(-1))?.focus();
};

const taken = (measured) => {
  const C = data.names.length, row = [...measured.confusion.slice(chosen * C, (chosen + 1) * C)];
  return row.map((images, c) => [images, c]).filter(([images]) => images).sort((a, b) => b[0] - a[0]).slice(0, 4)
    .map(([images, c]) => element("tr", {}, element("td", { textContent: data.names[c] + (c === chosen ? " (right)" : "") }),
      element("td", { textContent: percent(images / measured.count[chosen]) })));
};
const heaviest = () => {
  const C = data.names.length, first = data.classes.length - data.described;
  const text = (k) => (k < first ? data.prompts[Math.floor(k / C)].replace("{}", data.names[chosen]) : data.sentences[k - first]);
  return data.classes.map((c, k) => [c, k]).filter(([c, k]) => c === chosen && now.weights[k] > 0).sort((a, b) => now.weights[b[1]] - now.weights[a[1]]).slice(0, 5)
    .map(([, k]) => element("tr", {}, element("td", { textContent: text(k) }), element("td", { textContent: percent(now.weights[k]) })));
};
const showClass = () => {
  if (!now) return;
  for (const open of movers.querySelectorAll("button")) {
    const shown = Number(open.value) === chosen;
    open.setAttribute("aria-pressed", String(shown));
    open.closest("tr").classList.toggle("cmm-chosen", shown);
  }
  const part = (title, rows) => [element("p", { textContent: title }), element("table", { className: "cmm-numbers" }, element("tbody", {}, ...rows))];
  oneClass.replaceChildren(
    element("p", { className: "cmm-title", textContent: data.names[chosen] }),
    element("p", { textContent: `Accuracy ${percent(base.accuracy[chosen])} with the base prompt, ${percent(now.accuracy[chosen])} now. CMM ${signed(base.cmm[chosen])}, now ${signed(now.cmm[chosen])}.` }),
    ...part("With the base prompt its images are predicted as", taken(base)), ...part("now as", taken(now)),
    ...part("Its heaviest texts now", heaviest()));
};

controls.forEach((set) => set());
const difference = element("p", { className: "cmm-said", textContent: `The worst ${data.base_worst.at(-1)?.k} are chosen anew for each column and may be other classes now; the base prompt's worst ${data.base_worst.at(-1)?.k} are the same classes in both columns.` });
results.append(element("div", {}, table, ...(data.base_worst.length ? [difference] : []), curves),
  element("div", {}, movers, labelled("one class", classSelect), oneClass));
dim(true);
root.replaceChildren(bar, templates, said, results);
root.dataset.state = "starting";
worker.postMessage({ start: data, move: moves });

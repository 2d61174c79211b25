// The method under the reader's hands: candidates, CMM, weights, the ensemble and prior matching, computed here.
const data = dataOf("playground");
const root = around.querySelector(".cmm-playground");

// ---------------------------------------------------------------- the method, in a process of its own

// One function without anything from outside, so that it can be sent to a worker as text.
const method = () => {
  let m = null; // what does not change

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
  // x [N, D] times y [R, D], as [N, R]
  const products = (x, y, width, told = () => {}) => {
    const n = x.length / width, r = y.length / width, out = new Float32Array(n * r);
    for (let i = 0; i < n; i++) {
      if (i % 200 === 0) told(i / n);
      for (let j = 0; j < r; j++) {
        let sum = 0;
        for (let d = 0, a = i * width, b = j * width; d < width; d++, a++, b++) sum += x[a] * y[b];
        out[i * r + j] = sum;
      }
    }
    return out;
  };

  const start = (given) => {
    const images = unpacked(given.images), candidates = unpacked(given.candidates);
    const width = images.length / given.images.rows;
    m = { ...given, width, C: given.names.length, N: given.images.rows, images, vectors: candidates, T: given.candidates.rows,
      labels: new Uint16Array(bytes(given.labels).buffer), base: unpacked(given.base) };
    m.templates = m.T - m.described;
    const similarity = products(m.images, m.base, width);
    return { similarity, bias: new Float64Array(m.C) };
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
  const candidateCmm = (on, others) => {
    const mass = new Float64Array(m.T), total = new Float64Array(m.T), { C, T, scale } = m;
    const against = products(m.images, others, m.width), e = new Float64Array(C), list = [...on.keys()].filter((k) => on[k]);
    for (let n = 0; n < m.N; n++) {
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
    }
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

  // prior matching by Sinkhorn's algorithm: biases at which all classes have the same mean probability
  const matched = (similarity) => {
    const { N, C, scale } = m, bias = new Float64Array(C), p = new Float64Array(C);
    for (let round = 0; round < 300; round++) {
      const share = new Float64Array(C);
      for (let n = 0; n < N; n++) {
        let top = -Infinity, sum = 0;
        for (let c = 0; c < C; c++) top = Math.max(top, (p[c] = scale * similarity[n * C + c] + bias[c]));
        for (let c = 0; c < C; c++) sum += p[c] = Math.exp(p[c] - top);
        for (let c = 0; c < C; c++) share[c] += p[c] / sum;
      }
      const gaps = share.map((value) => Math.log(Math.max(value, 1e-300) / N * C));
      for (let c = 0; c < C; c++) bias[c] -= gaps[c];
      if (Math.max(...gaps) - Math.min(...gaps) < 1e-3) break;
    }
    const mean = bias.reduce((a, b) => a + b) / C;
    return bias.map((value) => value - mean);
  };

  const measured = (similarity, bias) => {
    const { N, C, scale, labels } = m, right = new Float64Array(C), count = new Float64Array(C), confusion = new Uint32Array(C * C);
    const mass = new Float64Array(C), total = new Float64Array(C), e = new Float64Array(C);
    for (let n = 0; n < N; n++) {
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
    }
    const accuracy = [...right].map((hits, c) => (count[c] ? hits / count[c] : null));
    return { accuracy, overall: right.reduce((a, b) => a + b) / N, cmm: [...total].map((sum, c) => sum / mass[c]), confusion, count: [...count] };
  };

  let kept = { key: null };
  const classifierOf = (settings) => {
    const { strength, ...texts } = settings, key = JSON.stringify(texts);
    if (kept.key === key) return kept;
    const on = active(settings);
    let weights = equal(on, settings.balanced);
    if (settings.weights) {
      let others = combined(equal(on.map((value, k) => (k < m.templates ? value : 0)), false));
      for (let round = 0; round < m.rounds; round++) {
        weights = weighed(on, candidateCmm(on, others), settings.temperature, settings.balanced);
        others = combined(weights);
      }
    }
    kept = { key, weights, similarity: products(m.images, combined(weights), m.width), bias: null };
    return kept;
  };

  onmessage = ({ data: { start: given, settings } }) => {
    if (given) {
      const { similarity, bias } = start(given);
      postMessage({ kind: "base", ...measured(similarity, bias) });
      m.similarity = products(m.images, m.vectors, m.width, (share) => postMessage({ kind: "progress", share }));
      postMessage({ kind: "started" });
      return;
    }
    const made = classifierOf(settings);
    if (settings.strength && !made.bias) made.bias = matched(made.similarity);
    const bias = made.bias ? made.bias.map((value) => settings.strength * value) : new Float64Array(m.C);
    postMessage({ kind: "now", settings, weights: made.weights, ...measured(made.similarity, bias) });
  };
};

// ---------------------------------------------------------------- what the reader moves

const run = { templates: data.prompts.map(() => true), described: data.n_described, temperature: data.temperature, balanced: true, weights: true, strength: 0 };
let settings = structuredClone(run), base = null, now = null, busy = true, waiting = false, chosen = 0;

const worker = new Worker(URL.createObjectURL(new Blob([`(${method})()`], { type: "text/javascript" })));
const said = element("p", { className: "cmm-said", role: "status", textContent: "Reading the embeddings …" });
const ask = () => {
  if (busy) { waiting = true; return; }
  [busy, waiting] = [true, false];
  root.dataset.state = "computing";
  said.textContent = "Computing …";
  worker.postMessage({ settings: structuredClone(settings) });
};
worker.onerror = () => { said.textContent = "This browser does not let the page compute: open the book through a web server."; };
worker.onmessage = ({ data: answer }) => {
  if (answer.kind === "progress") { said.textContent = `Comparing every image with every text: ${percent(answer.share)} …`; return; }
  if (answer.kind === "base") { base = answer; return; }
  busy = false;
  if (answer.kind === "now") {
    if (!now) choose(mostGained(answer.accuracy));
    now = answer;
    show();
  }
  if (answer.kind === "started" || waiting) { ask(); return; }
  root.dataset.state = "ready";
};
const mostGained = (accuracy) => accuracy.reduce((at, value, c) => (value - base.accuracy[c] > accuracy[at] - base.accuracy[at] ? c : at), 0);
const choose = (c) => { chosen = c; classSelect.value = String(c); };

let timer = null;
const changed = () => { clearTimeout(timer); timer = setTimeout(ask, 150); };
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
const numbers = element("tbody"), curves = element("div"), oneClass = element("div", { className: "cmm-card" });
const table = element("table", { className: "cmm-numbers" },
  element("thead", {}, element("tr", {}, ...["", "base prompt", "now", "change"].map((text) => element("th", { scope: "col", textContent: text })))), numbers);
const numberRow = (text, before, after, show, change) =>
  element("tr", {}, element("th", { scope: "row", textContent: text }), ...[show(before), show(after), change(after - before)].map((cell) => element("td", { textContent: cell })));
const classSelect = element("select", {}, ...data.names.map((name, c) => element("option", { value: c, textContent: name })));
classSelect.addEventListener("change", () => { chosen = Number(classSelect.value); showClass(); });

const curve = () => {
  const [width, height, left, bottom] = [460, 260, 40, 38], C = data.names.length;
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
    numberRow("overall", base.overall, now.overall, (v) => percent(v, 1), points),
    ...data.ks.map((k) => numberRow(`worst ${k}`, worst(base.accuracy, k), worst(now.accuracy, k), (v) => percent(v, 1), points)),
    numberRow("classes at zero", zero(base.accuracy), zero(now.accuracy), String, (v) => (v > 0 ? `+${v}` : v < 0 ? `−${-v}` : "0")));
  Object.assign(root.dataset, { overall: now.overall, worst: worst(now.accuracy, data.ks.at(-1)), zero: zero(now.accuracy), base: base.overall });
  root.accuracy = now.accuracy;
  curves.replaceChildren(curve());
  said.textContent = JSON.stringify(now.settings) === JSON.stringify(run) ? "These are the settings of the run." : "Settings of your own.";
  showClass();
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
  const part = (title, rows) => [element("p", { textContent: title }), element("table", { className: "cmm-numbers" }, element("tbody", {}, ...rows))];
  oneClass.replaceChildren(
    element("p", { className: "cmm-title", textContent: data.names[chosen] }),
    element("p", { textContent: `Accuracy ${percent(base.accuracy[chosen])} with the base prompt, ${percent(now.accuracy[chosen])} now. CMM ${signed(base.cmm[chosen])}, now ${signed(now.cmm[chosen])}.` }),
    ...part("With the base prompt its images are predicted as", taken(base)), ...part("now as", taken(now)),
    ...part("Its heaviest texts now", heaviest()));
};

controls.forEach((set) => set());
root.replaceChildren(bar, templates, said,
  element("div", { className: "cmm-columns" }, element("div", {}, table, curves), element("div", {}, labelled("one class", classSelect), oneClass)));
root.dataset.state = "starting";
worker.postMessage({ start: data });

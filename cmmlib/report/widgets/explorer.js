// All classes of a study in one table and one chart: sort, filter, choose one and read what is known of it.
const data = dataOf("explorer");
const root = around.querySelector(".cmm-explorer");
const classes = data.classes.map((row, index) => ({ ...row, index }));
const state = { sort: data.columns[data.first].key, down: false, text: "", group: "all", method: data.methods[0]?.key ?? null, chosen: null };
const gain = (row) => (state.method && row.accuracy !== null ? row.methods[state.method] - row.accuracy : null);
const value = (row, key) => (key === "gain" ? gain(row) : row[key]);
const SHOWN = {
  accuracy: (row) => percent(row.accuracy),
  gain: (row) => points(gain(row)),
  cmm: (row) => signed(row.cmm),
  rank: (row) => String(row.rank),
  predicted: (row) => String(row.predicted),
};

const isShown = (row) => {
  const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  const text = `${row.name} ${row.plain ?? ""}`.toLowerCase();
  return words.every((word) => text.includes(word)) && GROUPS[state.group].has(row);
};
const GROUPS = {
  all: { title: "all classes", has: () => true },
  suspects: { title: `the ${data.n_suspects} most suspected`, has: (row) => row.rank <= data.n_suspects },
  worst: { title: "the worst classes", has: (row) => row.worst },
  zero: { title: "classes at zero", has: (row) => row.accuracy === 0 },
  better: { title: "better with the method", has: (row) => gain(row) > 0 },
  poorer: { title: "worse with the method", has: (row) => gain(row) < 0 },
};
const compare = (a, b) => {
  const [x, y] = [value(a, state.sort), value(b, state.sort)];
  if (x === y) return a.index - b.index;
  if (x === null || y === null) return x === null ? 1 : -1; // what is not known comes last
  return (x < y ? -1 : 1) * (state.down ? -1 : 1);
};

// ---------------------------------------------------------------- the table

const columns = data.columns.filter((column) => column.key !== "gain" || data.methods.length);
const body = element("tbody");
const count = element("p", { className: "cmm-said", role: "status" });
const details = element("div", { className: "cmm-card", "aria-live": "polite" });
const methods = element("div", { className: "cmm-methods" });

const heads = columns.map((column) => {
  const button = element("button", { type: "button", textContent: column.title, title: column.help });
  button.addEventListener("click", () => {
    state.down = state.sort === column.key ? !state.down : false;
    state.sort = column.key;
    draw();
  });
  return element("th", { scope: "col" }, button);
});

const rowOf = (row) => {
  const button = element("button", { type: "button", textContent: row.name });
  button.addEventListener("click", () => choose(row));
  const cells = columns.slice(1).map(({ key }) => element("td", { textContent: SHOWN[key] ? SHOWN[key](row) : (row[key] ?? "") }));
  const made = element("tr", {}, element("td", {}, button), ...cells);
  made.classList.toggle("cmm-chosen", row === state.chosen);
  return made;
};

const draw = () => {
  const rows = classes.filter(isShown).sort(compare);
  body.replaceChildren(...rows.map(rowOf));
  heads.forEach((head, i) => {
    const sorted = columns[i].key === state.sort;
    head.setAttribute("aria-sort", sorted ? (state.down ? "descending" : "ascending") : "none");
    head.firstChild.textContent = columns[i].title + (sorted ? (state.down ? " ▼" : " ▲") : "");
  });
  count.textContent = [`${rows.length} of ${classes.length} classes are shown.`, ...data.remarks].join(" ");
  const shown = new Set(rows);
  classes.forEach((row) => {
    row.dot?.classList.toggle("cmm-out", !shown.has(row));
    row.dot?.classList.toggle("cmm-chosen", row === state.chosen);
  });
};

body.addEventListener("keydown", (event) => {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const next = step && event.target.closest("tr")[step]?.querySelector("button");
  if (!next) return;
  next.focus();
  event.preventDefault();
});

// ---------------------------------------------------------------- one class

const sentence = (...parts) => element("p", {}, ...parts);
const pictures = (row) =>
  row.pictures.length
    ? [element("div", { className: "cmm-pictures" }, ...row.pictures.map((at) => data.pictures[at]).map(({ source, name, text }) =>
        element("figure", {}, element("img", { src: source, alt: `picture: ${name}` }), element("figcaption", {}, element("b", { textContent: name }), ` ${text}`))))]
    : [];
const methodRows = (row) =>
  data.methods.map(({ key, title }) =>
    element("tr", {}, element("td", { textContent: title }), element("td", { textContent: percent(row.methods[key]) }),
      element("td", { textContent: points(row.methods[key] - row.accuracy) })),
  );
const answers = (row) =>
  row.answers.length
    ? [sentence(`What a language model said of it${row.who ? ` (${row.who})` : ""}:`), element("ul", {}, ...row.answers.map((text) => element("li", { textContent: text })))]
    : [];

const choose = (row) => {
  const focused = document.activeElement?.closest(".cmm-rows") !== null;
  state.chosen = row;
  draw();
  if (focused) [...body.rows].find((made) => made.classList.contains("cmm-chosen"))?.querySelector("button").focus();
  const known = row.accuracy !== null;
  details.replaceChildren(
    element("p", { className: "cmm-title", textContent: row.name }),
    ...(row.plain ? [element("p", { className: "cmm-plain", textContent: row.plain })] : []),
    ...pictures(row),
    ...(known ? [sentence(`Accuracy ${percent(row.accuracy)} of ${row.n} images (95 % interval ${percent(row.low)} to ${percent(row.high)}).`)] : []),
    ...(row.taken ? [sentence(`Most often taken for: ${row.taken} (${percent(row.taken_share)} of its images).`)] : []),
    sentence(`CMM ${signed(row.cmm)}: number ${row.rank} of ${classes.length} in the order of suspicion. Rival: ${row.rival || "none"}. Predicted ${row.predicted} times.`),
    ...answers(row),
  );
  methods.replaceChildren(...(known && data.methods.length ? [element("table", { className: "cmm-numbers" },
    element("caption", { textContent: `Every method on “${row.name}”` }),
    element("thead", {}, element("tr", {}, ...["method", "accuracy", "change"].map((text) => element("th", { scope: "col", textContent: text })))),
    element("tbody", {}, ...methodRows(row)))] : []));
};

// ---------------------------------------------------------------- the chart

const chart = () => {
  const [width, height, left, bottom, top, right] = [380, 250, 44, 40, 12, 12];
  const known = classes.filter((row) => row.cmm !== null && row[data.height.key] !== null);
  if (!known.length) return [];
  const across = known.map((row) => row.cmm);
  const [low, high] = [Math.min(...across), Math.max(...across)];
  const most = data.height.key === "accuracy" ? 1 : Math.max(1, ...known.map((row) => row[data.height.key]));
  const x = (cmm) => left + ((cmm - low) / (high - low || 1)) * (width - left - right);
  const y = (size) => height - bottom - (size / most) * (height - bottom - top);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": data.height.alt });
  for (const part of [0, 0.25, 0.5, 0.75, 1]) {
    const level = y(part * most);
    svg.append(drawn("line", { x1: left, x2: width - right, y1: level, y2: level, class: part ? "cmm-grid" : "cmm-axis" }),
      drawn("text", { x: left - 6, y: level + 4, "text-anchor": "end" }, String(Math.round(most * part * data.height.times))));
  }
  for (const part of [0, 0.5, 1]) {
    const at = low + part * (high - low);
    svg.append(drawn("text", { x: x(at), y: height - bottom + 16, "text-anchor": part === 0 ? "start" : part === 1 ? "end" : "middle" }, signed(at)));
  }
  svg.append(drawn("text", { x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, "CMM of the class (no labels)"),
    drawn("text", { x: 12, y: (height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(height - bottom) / 2})` }, data.height.title));
  for (const row of known) {
    row.dot = drawn("circle", { cx: x(row.cmm), cy: y(row[data.height.key]), r: known.length > 300 ? 3 : 4.5 }, drawn("title", {}, row.name));
    row.dot.classList.toggle("cmm-is-worst", Boolean(row.worst));
    row.dot.addEventListener("click", () => choose(row));
    svg.append(row.dot);
  }
  return [svg];
};

// ---------------------------------------------------------------- all together

const filter = element("input", { type: "search", placeholder: "part of a name", autocomplete: "off" });
filter.addEventListener("input", () => { state.text = filter.value; draw(); });
const select = (options, chosen, change) => {
  const made = element("select", {}, ...options.map(([key, text]) => element("option", { value: key, textContent: text, selected: key === chosen })));
  made.addEventListener("change", () => { change(made.value); draw(); });
  return made;
};
const groups = Object.entries(GROUPS).filter(([key]) => key === "all" || key === "suspects" || data.labels && (data.methods.length || !["better", "poorer"].includes(key)));
const controls = [
  labelled("filter by name", filter),
  labelled("show", select(groups.map(([key, { title }]) => [key, title]), "all", (key) => { state.group = key; })),
];
if (data.methods.length) {
  controls.push(labelled("gain of the method", select(data.methods.map(({ key, title }) => [key, title]), state.method, (key) => { state.method = key; })));
}
root.replaceChildren(
  element("div", { className: "cmm-bar" }, ...controls),
  element("div", { className: "cmm-rows", tabIndex: 0, role: "region", "aria-label": "table of all classes" },
    element("table", {}, element("thead", {}, element("tr", {}, ...heads)), body)),
  count,
  element("div", { className: "cmm-class" }, details, methods, element("div", { className: "cmm-chart" }, ...chart())),
);
choose(classes.filter(isShown).sort(compare)[0]);
root.dataset.state = "ready";

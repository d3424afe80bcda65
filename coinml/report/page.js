"use strict";
// Colours that people with any colour vision tell apart (Okabe and Ito 2008), yellow darkened.
const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a100", "#555555"];
const RIGHT = "#0072b2", WRONG = "#d55e00", NONE = "#c4ccd4";
const SPLITS = ["train", "val", "test"];
const MARGIN = 10, MAP_HEIGHT = 640;
const STEP = 100;
const LEGEND = 40;
const byId = new Map(points.map((point, place) => [point.id, place]));
const element = (name) => document.getElementById(name);
let head = 0;
let projection = null;
let highlighted = null;
let lassoed = null;

// Text is set as text, never as HTML: titles of videos are untrusted input.
function make(tag, text, parent) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}
function strip(place) {
  const picture = view.strips[points[place].id];
  if (!picture) return make("span", "");
  const image = make("img");
  image.src = "data:image/jpeg;base64," + picture;
  image.alt = "three frames of " + points[place].id;
  return image;
}
function titled(place) {
  const point = points[place];
  const name = make(point.link ? "a" : "span", point.title);
  if (point.link) { name.href = point.link; name.rel = "noopener noreferrer"; name.target = "_blank"; }
  return name;
}
const answerOf = (place) => (view.heads.length ? view.heads[head].answers[place] : -1);
const scoreOf = (place) => (view.heads.length ? view.heads[head].scores[place] : null);
const answer = (place) => (answerOf(place) < 0 ? "" : view.classes[answerOf(place)]);
const isWrong = (place) => answerOf(place) >= 0 && answerOf(place) !== view.labels[place];

// A table whose columns sort at a click and whose rows are made as they are asked for.
function table(parent, columns, rows, caption) {
  parent.replaceChildren();
  make("p", caption, parent).className = "note";
  if (!rows.length) return;
  const whole = make("table", undefined, parent);
  const top = make("tr", undefined, make("thead", undefined, whole));
  const body = make("tbody", undefined, whole);
  const more = make("button", "", parent);
  let shown = 0, direction = 0, sorted = null;
  const fill = () => {
    for (const row of rows.slice(shown, shown + STEP)) {
      const line = make("tr", undefined, body);
      for (const column of columns) {
        const cell = make("td", undefined, line);
        const value = column.show ? column.show(row) : column.of(row);
        cell.append(value instanceof Node ? value : String(value ?? ""));
        if (column.number) cell.className = "number";
      }
    }
    shown = Math.min(rows.length, shown + STEP);
    more.hidden = shown >= rows.length;
    more.textContent = "show more (" + shown + " of " + rows.length + ")";
  };
  more.onclick = fill;
  for (const column of columns) {
    const cell = make("th", undefined, top);
    if (column.number) cell.className = "number";
    if (!column.of) { cell.textContent = column.name; continue; }
    const button = make("button", column.name, cell);
    button.onclick = () => {
      direction = sorted === column ? -direction : 1;
      sorted = column;
      rows.sort((a, b) => {
        const x = column.of(a), y = column.of(b);
        return direction * (column.number ? (x ?? -1) - (y ?? -1) : String(x).localeCompare(String(y)));
      });
      for (const other of top.children) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      body.replaceChildren();
      shown = 0;
      fill();
    };
  }
  fill();
}
const VIDEO_COLUMNS = [
  { name: "frames", show: strip },
  { name: "video", of: (place) => points[place].title, show: titled },
  { name: "split", of: (place) => points[place].split },
  { name: "label", of: (place) => points[place].label },
  { name: "answer", of: answer },
  { name: "score", of: scoreOf, number: true, show: (place) => (scoreOf(place) ?? "") === "" ? "" : scoreOf(place).toFixed(3) },
];

function listWrong() {
  if (!element("wrong") || !view.heads.length) return;
  const split = element("wrong-split").value;
  const rows = points.map((_, place) => place)
    .filter((place) => isWrong(place) && (split === "all" || points[place].split === split))
    .sort((a, b) => scoreOf(b) - scoreOf(a));
  table(element("wrong"), VIDEO_COLUMNS, rows, rows.length + " videos that " + view.heads[head].title + " predicts wrongly, the surest first.");
}
function listClasses() {
  if (!element("per-class") || !view.heads.length) return;
  const counts = view.classes.map((name) => ({ name, support: 0, answered: 0, right: 0, taken: new Map() }));
  points.forEach((point, place) => {
    const at = answerOf(place);
    if (point.split !== "test" || at < 0) return;
    const truth = counts[view.labels[place]];
    truth.support += 1;
    counts[at].answered += 1;
    if (at === view.labels[place]) truth.right += 1;
    else truth.taken.set(at, (truth.taken.get(at) ?? 0) + 1);
  });
  const part = (a, b) => (b ? a / b : null);
  const shown = (value) => (value === null ? "" : value.toFixed(3));
  const recall = (row) => part(row.right, row.support), precision = (row) => part(row.right, row.answered);
  const f1 = (row) => part(2 * row.right, row.support + row.answered);
  const often = (row) => {
    const [first] = [...row.taken].sort((a, b) => b[1] - a[1]);
    return first ? view.classes[first[0]] + " (" + first[1] + ")" : "";
  };
  const column = (name, of) => ({ name, of, number: true, show: (row) => shown(of(row)) });
  table(element("per-class"), [
    { name: "class", of: (row) => row.name },
    { name: "test videos", of: (row) => row.support, number: true },
    column("recall", recall), column("precision", precision), column("F1", f1),
    { name: "most often taken for", of: often },
  ], counts.filter((row) => row.support || row.answered), "Classes of the test videos by " + view.heads[head].title + ".");
}
function drawConfusion() {
  if (!element("confusion") || !view.heads.length) return;
  const size = view.order.length;
  const position = new Map(view.order.map((name, place) => [name, place]));
  const counts = Array.from({ length: size }, () => new Array(size).fill(0));
  points.forEach((point, place) => {
    if (point.split === "test" && answerOf(place) >= 0) counts[position.get(point.label)][position.get(answer(place))] += 1;
  });
  const shares = counts.map((row) => { const sum = row.reduce((a, b) => a + b, 0); return row.map((n) => n / Math.max(sum, 1)); });
  Plotly.restyle("confusion", { z: [shares], customdata: [counts] });
}

function groupsNow() {
  const by = element("colour-by").value;
  if (by === "right") return points.map((_, place) => (answerOf(place) < 0 ? "no answer" : isWrong(place) ? "wrong" : "right"));
  if (by === "split") return points.map((point) => point.split);
  const named = by === "answer" ? points.map((_, place) => answer(place)) : points.map((point) => point.label);
  return named.map((name) => (name === "" ? "no answer" : view.domains[name] ?? name));
}
// The colour of each point by the chosen colouring, and whether others are highlighted.
function colouring() {
  const groups = groupsNow();
  const fixed = { right: RIGHT, wrong: WRONG, "no answer": NONE };
  const names = [...new Set(groups)].sort();
  const colours = new Map(names.map((name, place) => [name, fixed[name] ?? PALETTE[place % PALETTE.length]]));
  listLegend(names, colours);
  return {
    colours: groups.map((name) => colours.get(name)),
    faint: groups.map((name, place) => (highlighted !== null && highlighted !== name) || (lassoed !== null && !lassoed.has(place))),
  };
}
// The picture of a point: a circle, square or diamond, with a rim if the answer is wrong.
const marks = new Map();
function markOf(split, colour, wrong, scale) {
  const kind = split + colour + wrong + scale;
  if (marks.has(kind)) return marks.get(kind);
  const mark = make("canvas"), half = split === "train" ? 3 : 4.5;
  mark.size = 2 * half + 4;
  mark.width = mark.height = Math.ceil(mark.size * scale);
  const pen = mark.getContext("2d");
  pen.scale(mark.width / mark.size, mark.width / mark.size);
  pen.translate(mark.size / 2, mark.size / 2);
  pen.globalAlpha = 0.8;
  pen.fillStyle = colour;
  pen.beginPath();
  if (split === "val") pen.rect(-half, -half, 2 * half, 2 * half);
  else if (split === "test") for (const [x, y] of [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]]) pen.lineTo(x * half, y * half);
  else pen.arc(0, 0, half, 0, 2 * Math.PI);
  pen.closePath();
  pen.fill();
  pen.lineWidth = 1.5;
  if (wrong) pen.stroke();
  marks.set(kind, mark);
  return mark;
}
// Draws the points over Plotly's, which are invisible and answer the mouse. To draw 11,827 points in new
// colours, Plotly takes five times as long, most of it in WebGL where there is no graphics card.
let painted = null;
function paint() {
  const map = element("map"), layer = element("points");
  const { xaxis, yaxis } = map._fullLayout, scale = devicePixelRatio;
  const width = map.clientWidth - 2 * MARGIN, height = MAP_HEIGHT - 2 * MARGIN;
  layer.width = width * scale;
  layer.height = height * scale;
  layer.style.width = width + "px";
  layer.style.height = height + "px";
  const pen = layer.getContext("2d");
  pen.scale(scale, scale);
  const [xs, ys] = view.places[projection];
  const [left, right] = xaxis.range, [bottom, top] = yaxis.range;
  // Faint points are drawn first, then training videos, val and test.
  const order = [[], [], [], [], [], []];
  points.forEach((point, place) => order[(painted.faint[place] ? 0 : 3) + Math.max(0, SPLITS.indexOf(point.split))].push(place));
  for (const place of order.flat()) {
    const x = ((xs[place] - left) / (right - left)) * width, y = ((top - ys[place]) / (top - bottom)) * height;
    if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
    const mark = markOf(points[place].split, painted.colours[place], isWrong(place), scale);
    pen.globalAlpha = painted.faint[place] ? 0.1 : 1;
    pen.drawImage(mark, x - mark.size / 2, y - mark.size / 2, mark.size, mark.size);
  }
}
function listLegend(names, colours) {
  const legend = element("legend");
  legend.replaceChildren();
  for (const name of names.slice(0, LEGEND)) {
    const entry = make("button", name, legend);
    entry.style.borderLeft = "1em solid " + colours.get(name);
    entry.setAttribute("aria-pressed", String(highlighted === name));
    entry.onclick = () => { highlighted = highlighted === name ? null : name; recolour(); };
  }
  if (names.length > LEGEND) make("span", " and " + (names.length - LEGEND) + " more", legend);
}
function recolour() {
  if (!element("map")) return;
  painted = colouring();
  paint();
}
function show(place) {
  const panel = element("point");
  panel.replaceChildren(strip(place));
  const said = answer(place) ? " · answered " + answer(place) + " (" + scoreOf(place).toFixed(3) + ")" : "";
  make("p", undefined, panel).append(titled(place), " · " + points[place].label + " · " + points[place].split + said);
  panel.append("nearest:");
  const near = make("ol", undefined, panel);
  for (const other of points[place].near) {
    const line = make("li", undefined, near);
    line.append(strip(other), titled(other), " · " + points[other].label + " · " + points[other].split);
  }
}
function hover(event) {
  const box = element("hover"), place = event.points[0].customdata;
  box.replaceChildren(strip(place), make("div", points[place].title + " · " + points[place].label + (isWrong(place) ? " · answered " + answer(place) : "")));
  box.style.left = Math.min(event.event.clientX + 14, innerWidth - 310) + "px";
  box.style.top = event.event.clientY + 14 + "px";
  box.hidden = false;
}
function drawMap() {
  const map = element("map");
  if (!map) return;
  projection = Object.keys(view.places)[0];
  const layer = make("canvas");
  layer.id = "points";
  painted = colouring();
  const axis = { showticklabels: false, zeroline: false }, unseen = { marker: { opacity: 0 } };
  const placed = () => ({ x: [view.places[projection][0]], y: [view.places[projection][1]] });
  Plotly.newPlot(map, [{
    type: points.length > 4000 ? "scattergl" : "scatter", mode: "markers", hoverinfo: "none",
    x: placed().x[0], y: placed().y[0], customdata: points.map((_, place) => place),
    marker: { size: 9, opacity: 0 }, selected: unseen, unselected: unseen,
  }], {
    height: MAP_HEIGHT, margin: { l: MARGIN, r: MARGIN, t: MARGIN, b: MARGIN }, xaxis: axis, yaxis: { ...axis }, dragmode: "lasso", hovermode: "closest",
  }, { displaylogo: false, responsive: true });
  map.append(layer);
  map.on("plotly_afterplot", paint);
  map.on("plotly_relayouting", paint);
  paint();
  map.on("plotly_click", (event) => show(event.points[0].customdata));
  map.on("plotly_hover", hover);
  map.on("plotly_unhover", () => { element("hover").hidden = true; });
  map.on("plotly_selected", (event) => {
    const rows = (event?.points ?? []).map((point) => point.customdata);
    lassoed = event ? new Set(rows) : null;
    recolour();
    table(element("selected"), VIDEO_COLUMNS, rows, rows.length + " videos in the lasso.");
  });
  map.on("plotly_deselect", () => { lassoed = null; recolour(); });
  for (const name of Object.keys(view.places)) {
    const button = make("button", view.names[name], element("projections"));
    button.onclick = () => {
      projection = name;
      lassoed = null;
      Plotly.update(map, { ...placed(), selectedpoints: [null] }, { "xaxis.autorange": true, "yaxis.autorange": true, selections: [] });
      recolour();
    };
  }
  element("colour-by").onchange = () => { highlighted = null; recolour(); };
}
const PARTS = { wrong: listWrong, "per-class": listClasses, confusion: drawConfusion, map: recolour };
function isInView(name) {
  const box = element(name)?.getBoundingClientRect();
  return box !== undefined && box.bottom > 0 && box.top < innerHeight;
}
// What is in view changes at once, and the rest after it is painted, a part at a time.
function choose(number) {
  head = number;
  for (const select of document.querySelectorAll("select.head")) select.value = String(number);
  const seen = Object.keys(PARTS).filter(isInView);
  const later = Object.keys(PARTS).filter((name) => !seen.includes(name));
  for (const name of seen) PARTS[name]();
  const next = () => {
    if (head !== number || !later.length) return;
    PARTS[later.shift()]();
    afterPaint(next);
  };
  afterPaint(next);
}
function afterPaint(work) {
  requestAnimationFrame(() => setTimeout(work));
}
for (const select of document.querySelectorAll("select.head")) {
  view.heads.forEach((one, number) => { make("option", one.title, select).value = String(number); });
  select.onchange = () => choose(Number(select.value));
}
if (element("wrong-split")) element("wrong-split").onchange = listWrong;
for (const cell of document.querySelectorAll("[data-strip]")) {
  if (byId.has(cell.dataset.strip)) cell.append(strip(byId.get(cell.dataset.strip)));
}
// On a narrow screen, legends are above their charts, and the matrix is as high as it is wide.
if (innerWidth < 600) {
  const above = { "legend.orientation": "h", "legend.x": 0, "legend.y": 1.02, "legend.yanchor": "bottom" };
  for (const chart of document.querySelectorAll(".js-plotly-plot")) Plotly.relayout(chart, above);
  if (element("confusion")) Plotly.relayout("confusion", { height: element("confusion").offsetWidth });
}
drawMap();
listWrong();
listClasses();

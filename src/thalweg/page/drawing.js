// How a chart gets onto the page: only when it is near the screen, and again for paper.
"use strict";
performance.mark("thalweg:start");

const drawn = JSON.parse(document.getElementById("page-data").textContent);
const byId = (id) => document.getElementById(id);
// Plotly reads a little HTML in its labels: a name is plain text everywhere.
const plain = (words) => String(words).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const short = (words, most = 24) => {
  const letters = Array.from(String(words));
  // Names differ at their ends more often than in the middle: torch.optim:Adagrad, torch.optim:AdamW.
  const end = Math.floor((most - 1) * 0.6);
  return letters.length > most ? [...letters.slice(0, most - 1 - end), "…", ...letters.slice(-end)].join("") : letters.join("");
};

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const coarse = window.matchMedia("(pointer: coarse)");
let printing = false;
const THEMES = {
  light: { text: "#1b1f24", quiet: "#59626e", grid: "#e6e9ed", line: "#b6bdc7", page: "#ffffff" },
  dark: { text: "#e4e7eb", quiet: "#9fa8b4", grid: "#2a3037", line: "#565f6b", page: "#14171b" },
};
const themeName = () => (dark.matches && !printing ? "dark" : "light");
const theme = () => THEMES[themeName()];
const narrow = () => !printing && window.innerWidth <= 640;

const look = (index) => {
  const colours = drawn.looks[themeName()];
  return {
    colour: colours[index % colours.length],
    dash: drawn.looks.dashes[index % drawn.looks.dashes.length],
    marker: drawn.looks.markers[index % drawn.looks.markers.length],
  };
};
const faded = (hex, opacity) => {
  const part = (start) => parseInt(hex.slice(start, start + 2), 16);
  return `rgba(${part(1)},${part(3)},${part(5)},${opacity})`;
};

const show = (value, digits = 4) => {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return "∞";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return value.toExponential(digits - 2).replace(/\.?0+e/, "e");
  if (Number.isInteger(value) || size >= 10 ** digits) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(digits)));
};
const UNITS = { step: "steps", evaluations: "gradient evaluations", seconds: "training seconds" };

// Decades in full, and 2 and 5 between them where there are few decades: always plain numbers.
const logTicks = (low, high) => {
  const decades = Math.log10(high / low);
  let steps = decades < 0.35 ? null : decades < 1.2 ? [1, 1.5, 2, 3, 4, 5, 7] : decades < 3 ? [1, 2, 5] : [1];
  const every = decades > 7 ? 2 : 1;
  const ticks = [];
  if (!steps) return {};
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    if (power % every !== 0) continue;
    for (const step of steps) {
      const tick = step * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(Number(tick.toPrecision(3)));
    }
  }
  return ticks.length > 1 ? { tickmode: "array", tickvals: ticks, ticktext: ticks.map((tick) => show(tick)) } : {};
};

const axisStyle = (title, more = {}) => ({
  title: { text: plain(title), font: { size: 12.5, color: theme().quiet }, standoff: 10 },
  tickfont: { size: 12, color: theme().quiet }, color: theme().quiet,
  gridcolor: theme().grid, linecolor: theme().line, zeroline: false, automargin: true,
  tickcolor: theme().line, exponentformat: "power", ...more,
});
const logAxis = (title, low, high, more = {}) => axisStyle(title, {
  type: "log", range: [Math.log10(low), Math.log10(high)], ...logTicks(low, high), ...more,
});
const spread = (values, log) => {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value === null || !Number.isFinite(value) || (log && value <= 0)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return log ? [0.1, 1] : [0, 1];
  if (log) { const pad = Math.max((high / low) ** 0.05, 1.02); return [low / pad, high * pad]; }
  const pad = 0.05 * (high - low) || Math.abs(high) * 0.05 || 1;
  return [low - pad, high + pad];
};
const valueAxis = (title, values, log, more = {}) => {
  const [low, high] = spread(values, log);
  return log ? logAxis(title, low, high, more) : axisStyle(title, { range: [low, high], ...more });
};
const layoutOf = (more) => ({
  paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
  font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: theme().text },
  margin: { l: 56, r: 14, t: 12, b: 46 }, hovermode: "closest", dragmode: coarse.matches ? false : "zoom",
  hoverlabel: { namelength: -1, font: { size: 12.5, color: theme().text }, bgcolor: theme().page, bordercolor: theme().line },
  modebar: { bgcolor: "rgba(0,0,0,0)", color: theme().line, activecolor: theme().quiet },
  ...more,
});
const CONFIG = {
  displaylogo: false, responsive: true, doubleClick: "reset", displayModeBar: "hover",
  modeBarButtons: [["toImage", "resetScale2d"]],
  toImageButtonOptions: { format: "svg", filename: "thalweg" },
};

// A chart is {id, build}: build returns {traces, layout} from the state of the page.
const charts = new Map();
const near = new Set();
const draw = (chart) => {
  const height = chart.tall ? chart.tall() : null;
  if (height) chart.element.style.height = `${height}px`;
  const { traces, layout } = chart.build();
  if (printing) {
    layout.width = chart.small ? 328 : 680;
    layout.height = height || (chart.small ? 230 : 340);
  }
  if (printing || chart.printed) Plotly.purge(chart.element);
  chart.printed = printing;
  Plotly.react(chart.element, traces, layout, chart.small || printing || coarse.matches ? { ...CONFIG, displayModeBar: false } : CONFIG);
  chart.fresh = true;
  chart.element.dataset.drawn = "true";
};
const drawAll = () => charts.forEach((chart) => { if (!chart.fresh) draw(chart); });
const refresh = (...ids) => {
  charts.forEach((chart, id) => {
    if (ids.length && !ids.some((wanted) => id.startsWith(wanted))) return;
    chart.fresh = false;
    if (near.has(id)) draw(chart);
  });
};
const watcher = new IntersectionObserver((entries) => {
  entries.forEach((entry) => {
    const chart = charts.get(entry.target.id);
    if (!entry.isIntersecting) { near.delete(chart.id); return; }
    near.add(chart.id);
    if (!chart.fresh) draw(chart);
  });
  if (near.size) performance.mark("thalweg:drawn");
}, { rootMargin: "300px 0px" });
const addChart = (id, build, tall) => {
  const element = byId(id);
  if (element && tall) element.style.height = `${tall()}px`;
  if (element) charts.set(id, { id, build, tall, element, small: id.startsWith("trials-"), fresh: false, printed: false });
};
const watchAll = () => charts.forEach((chart) => watcher.observe(chart.element));

dark.addEventListener("change", () => refresh());
let wasNarrow = narrow();
window.addEventListener("resize", () => {
  if (printing || narrow() === wasNarrow) return;
  wasNarrow = narrow();
  refresh();
});
let opened = [];
window.addEventListener("beforeprint", () => {
  printing = true;
  opened = Array.from(document.querySelectorAll("details:not([open])"));
  opened.forEach((element) => { element.open = true; });
  charts.forEach(draw);
});
window.addEventListener("afterprint", () => {
  printing = false;
  opened.forEach((element) => { element.open = false; });
  charts.forEach((chart) => { chart.fresh = false; if (near.has(chart.id)) draw(chart); });
});

// What every page does when it opens; `begin` adds its own charts.
const copyButtons = () => document.querySelectorAll(".copy").forEach((button) => button.addEventListener("click", () => {
  const words = button.parentElement.querySelector("code"), range = document.createRange(), done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1500); };
  range.selectNodeContents(words);
  getSelection().removeAllRanges(); getSelection().addRange(range);
  if (navigator.clipboard) navigator.clipboard.writeText(words.textContent).then(done, () => {}); else if (document.execCommand("copy")) done();
}));
const whenOpened = (begin) => {
  const start = () => {
    if (typeof Plotly === "undefined") {
      const words = document.createElement("p");
      words.className = "banner";
      words.textContent = "The charts are missing: plotly.min.js must lie beside this page. With --single-file the page carries it.";
      document.querySelector(".hero").append(words);
      document.querySelectorAll(".chart, .controls, .options").forEach((element) => { element.hidden = true; });
      return;
    }
    copyButtons();
    begin();
  };
  // Plotly beside the page is a deferred script: it is there once the document is parsed.
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
};

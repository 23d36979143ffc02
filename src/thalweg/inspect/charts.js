// The charts of an inspection: each returns {traces, layout} from `found`, what inspection.json holds.
const found = drawn;
const chosen = { log: true };
const INK = 0, WARM = 1, GREEN = 2; // positions in the palette every page shares

const densityChart = () => {
  const { x, y, half } = found.density, ink = look(INK).colour, warm = look(WARM).colour;
  const top = Math.max(...y), floor = top * 1e-6;
  const clip = (v) => (chosen.log ? Math.max(v, floor) : Math.max(v, 0));
  const traces = [];
  if (half) traces.push({
    x: [...x, ...x.slice().reverse()], y: [...y.map((v, i) => clip(v + half[i])), ...y.map((v, i) => clip(v - half[i])).reverse()],
    type: "scatter", mode: "lines", fill: "toself", fillcolor: faded(ink, 0.16), line: { width: 0 }, hoverinfo: "skip", name: "interval", meta: "band",
  });
  traces.push({ x, y: y.map(clip), type: "scatter", mode: "lines", line: { color: ink, width: 2 }, name: "density", meta: "density", hovertemplate: "eigenvalue %{x:.4g}<br>density %{y:.3g}<extra></extra>" });
  const shapes = [{ type: "line", x0: 0, x1: 0, y0: 0, y1: 1, yref: "paper", line: { width: 1, color: theme().quiet, dash: "dot" }, layer: "below" }];
  let [low, high] = [x[0], x[x.length - 1]];
  if (found.ends) {
    const { values, lower_bound: lower, upper_bound: upper } = found.ends;
    values.forEach((v) => shapes.push({ type: "line", x0: v, x1: v, y0: 0, y1: 0.07, yref: "paper", line: { width: 2, color: warm } }));
    const span = (from, to) => shapes.push({ type: "rect", x0: from, x1: to, y0: 0, y1: 0.07, yref: "paper", line: { width: 0 }, fillcolor: faded(warm, 0.3) });
    const ends = [values[0], values[values.length - 1]];
    if (lower !== null) span(lower, ends[0]);
    if (upper !== null) span(ends[1], upper);
    [low, high] = [Math.min(low, ...ends, lower ?? low), Math.max(high, ...ends, upper ?? high)];
  }
  const pad = 0.02 * (high - low) || 1, value = axisStyle("density of eigenvalues", chosen.log ? { type: "log", range: [Math.log10(floor), Math.log10(top * 2)], ...logTicks(floor, top * 2) } : { rangemode: "tozero" });
  return { traces, layout: layoutOf({ shapes, xaxis: axisStyle("eigenvalue", { range: [low - pad, high + pad], showgrid: false, showline: true, ticks: "outside" }), yaxis: value }) };
};

const lineChart = (key) => () => {
  const { axes: [x], values, quadratic } = found.slices[key], [low, high] = spread(values, false), reach = high - low;
  const kept = quadratic.map((v) => (v > high + 0.15 * reach || v < low - 0.15 * reach ? null : v));
  const traces = [
    { x, y: kept, type: "scatter", mode: "lines", name: "quadratic model", meta: "quadratic", line: { color: look(WARM).colour, width: 1.8, dash: "5px,3px" }, hovertemplate: "model %{y:.5g}<extra></extra>" },
    { x, y: values, type: "scatter", mode: "lines", name: "loss", meta: "loss", line: { color: look(INK).colour, width: 2.2 }, hovertemplate: "%{x:.3g}: loss %{y:.5g}<extra></extra>" },
    { x: [0], y: [found.slices[key].centre], type: "scatter", mode: "markers", name: "the point", meta: "point", marker: { size: 9, color: theme().text, symbol: "diamond" }, hoverinfo: "skip" },
  ];
  return { traces, layout: layoutOf({ margin: { l: 56, r: 10, t: 8, b: 44 }, xaxis: axisStyle("step along the unit eigenvector", { showgrid: false, showline: true, ticks: "outside" }), yaxis: axisStyle("loss", { range: [low - 0.1 * reach, high + 0.1 * reach], nticks: 6 }) }) };
};

const planeChart = () => {
  const { axes: [x, y], values } = found.slices.plane, z = y.map((_, j) => x.map((_, i) => values[i][j]));
  const flat = values.flat(), [low, high] = [Math.min(...flat), Math.max(...flat)], log = low > 0 && high > 20 * low;
  const shownZ = log ? z.map((row) => row.map(Math.log10)) : z;
  const bar = log ? logTicks(low, high) : {};
  const traces = [
    {
      x, y, z: shownZ, type: "contour", colorscale: "Viridis", reversescale: themeName() === "light", ncontours: 24, meta: "plane", name: "loss", line: { width: 0.6 }, contours: { coloring: "heatmap" },
      customdata: z, hovertemplate: "loss %{customdata:.5g}<extra></extra>",
      colorbar: { title: { text: "loss", font: { size: 12.5, color: theme().quiet } }, thickness: narrow() ? 9 : 14, outlinewidth: 0, tickfont: { size: 12, color: theme().quiet }, ...(bar.tickvals ? { tickmode: "array", tickvals: bar.tickvals.map(Math.log10), ticktext: bar.ticktext } : {}) },
    },
    { x: [0], y: [0], type: "scatter", mode: "markers", meta: "point", name: "the point", marker: { size: 11, color: "#ffffff", symbol: "diamond", line: { width: 2, color: "#14171b" } }, hoverinfo: "skip" },
  ];
  return { traces, layout: layoutOf({ margin: { l: 52, r: 8, t: 8, b: 44 }, xaxis: axisStyle("first direction", { showgrid: false, nticks: 7 }), yaxis: axisStyle("second direction", { showgrid: false, nticks: 7 }) }) };
};

const curveChart = (series) => () => {
  const { step } = found.curves, lines = series.lines.filter((line) => found.curves[line.key].some((v) => v !== null));
  const seen = lines.flatMap((line) => [...found.curves[line.key], ...(line.low ? [...found.curves[line.low], ...found.curves[line.high]] : [])]).filter((v) => v !== null);
  const log = series.log && seen.every((v) => v > 0);
  const traces = [];
  lines.filter((line) => line.low).forEach((line) => {
    const at = step.map((_, i) => i).filter((i) => found.curves[line.low][i] !== null && found.curves[line.high][i] !== null);
    traces.push({ x: [...at.map((i) => step[i]), ...at.map((i) => step[i]).reverse()], y: [...at.map((i) => found.curves[line.high][i]), ...at.map((i) => found.curves[line.low][i]).reverse()], type: "scatter", mode: "lines", fill: "toself", fillcolor: faded(look(line.look).colour, 0.16), line: { width: 0 }, hoverinfo: "skip", meta: "band", name: line.name });
  });
  lines.forEach((line) => {
    const { colour, dash, marker } = look(line.look);
    traces.push({ x: step, y: found.curves[line.key], type: "scatter", mode: "lines+markers", name: line.name, meta: "curve", line: { color: colour, width: 2, dash }, marker: { symbol: marker, color: colour, size: 6 }, hovertemplate: `<b>${line.name}</b> %{y:.5g}<br>at step %{x:,}<extra></extra>` });
  });
  return { traces, layout: layoutOf({ showlegend: lines.length > 1, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12, color: theme().quiet } }, margin: { l: 56, r: 10, t: lines.length > 1 ? 26 : 8, b: 44 }, xaxis: axisStyle("step", { rangemode: "tozero", showgrid: false, showline: true, ticks: "outside", nticks: 6 }), yaxis: { ...valueAxis(series.title, seen, log), nticks: 6 } }) };
};
const CURVES = {
  "curve-loss": { title: "loss", log: true, lines: [{ key: "loss", name: "loss", look: 0 }] },
  "curve-gradient": { title: "gradient norm", log: true, lines: [{ key: "gradient_norm", name: "gradient norm", look: 0 }] },
  "curve-ends": { title: "eigenvalue", log: false, lines: [{ key: "highest", name: "largest", look: 1 }, { key: "lowest", name: "smallest", look: 0 }, { key: "directional_sharpness", name: "along the step", look: 2 }] },
  "curve-trace": { title: "trace", log: false, lines: [{ key: "trace", name: "trace", look: 0, low: "trace_low", high: "trace_high" }] },
};

whenOpened(() => {
  if (found.curves) Object.entries(CURVES).forEach(([id, series]) => addChart(id, curveChart(series)));
  if (found.density) addChart("density", densityChart);
  ["top", "bottom"].forEach((key) => { if (found.slices && found.slices[key]) addChart(`slice-${key}`, lineChart(key)); });
  if (found.slices && found.slices.plane) addChart("plane", planeChart);
  const box = byId("log-density");
  if (box) box.addEventListener("change", () => { chosen.log = box.checked; refresh("density"); });
  watchAll();
  // For tests and for the reader's console.
  window.thalweg = { found, charts, drawAll };
});

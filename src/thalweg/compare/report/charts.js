// The charts: each returns {traces, layout} from `race` and `state`.
const race = drawn;
if (race.unit === "iterations") Object.assign(UNITS, { step: "iterations", seconds: "seconds" });
const GOAL = race.goal === "min" ? 1 : -1;
const better = (a, b) => (GOAL > 0 ? a < b : a > b);
const validations = race.methods.flatMap((method) => method.runs.flatMap((run) => run.validation)).filter((v) => v !== null);
const state = {
  axis: "step", series: "validation", log: race.scale === "ratio" && validations.every((v) => v > 0),
  band: true, seeds: false, paired: false, hidden: new Set(), target: race.target.value, hyper: null,
};
const shown = () => race.order.filter((index) => !state.hidden.has(index));
const column = (run, axis) => (axis === "evaluations" && run.evaluations === null ? run.step : run[axis]);
const MISSED = { symbol: "x-thin", size: 9 };

const curveChart = () => {
  const traces = [], seen = [], name = race.labels[state.series];
  const indices = shown().filter((index) => race.methods[index].runs.length);
  const curves = indices.map((index) => race.methods[index].median[state.axis][state.series]);
  curves.forEach((curve) => { seen.push(...curve.median); if (state.band) seen.push(...curve.low, ...curve.high); });
  if (state.seeds) indices.forEach((index) => race.methods[index].runs.forEach((run) => { for (const v of run[state.series]) seen.push(v); }));
  const log = state.log && seen.every((value) => value === null || value > 0);
  const y = valueAxis(name, seen, log);
  const worst = GOAL > 0 || state.series === "train" ? (log ? 10 ** y.range[1] : y.range[1]) : y.range[0];
  if (state.band) indices.forEach((index, position) => {
    const curve = curves[position], name = plain(race.methods[index].name), open = (i) => curve.low[i] === null || curve.high[i] === null;
    // Where the interval has no upper end (runs missed) the band is paler, up to the edge.
    [[0.16, (i) => !open(i)], [0.06, open]].forEach(([opacity, belongs]) => {
      const xs = [], ys = [];
      for (let i = 0; i < curve.x.length; i += 1) {
        if (curve.median[i] === null || !belongs(i)) continue;
        const from = i;
        while (i + 1 < curve.x.length && curve.median[i + 1] !== null && belongs(i + 1)) i += 1;
        const kept = curve.x.map((_, j) => j).slice(from, i + 1), edge = (side) => kept.map((j) => (curve[side][j] === null ? worst : curve[side][j]));
        xs.push(...kept.map((j) => curve.x[j]), ...kept.map((j) => curve.x[j]).reverse(), null);
        ys.push(...edge("high"), ...edge("low").reverse(), null);
      }
      if (xs.length) traces.push({ x: xs, y: ys, type: "scatter", mode: "lines", fill: "toself", fillcolor: faded(look(index).colour, opacity), line: { width: 0 }, hoverinfo: "skip", name, meta: "band" });
    });
  });
  if (state.seeds) indices.forEach((index) => {
    const xs = [], ys = [];
    race.methods[index].runs.forEach((run) => {
      const at = column(run, state.axis), every = Math.max(1, Math.floor(at.length / 150));
      at.forEach((value, i) => { if (i % every === 0 || i === at.length - 1) { xs.push(value); ys.push(run[state.series][i]); } });
      xs.push(null); ys.push(null);
    });
    traces.push({ x: xs, y: ys, type: "scatter", mode: "lines", line: { width: 1, color: faded(look(index).colour, 0.45) }, hoverinfo: "skip", name: plain(race.methods[index].name) });
  });
  indices.forEach((index, position) => {
    const curve = curves[position], { colour, dash, marker } = look(index), method = race.methods[index];
    traces.push({
      x: curve.x, y: curve.median, type: "scatter", mode: "lines+markers", name: plain(method.name), meta: "median",
      line: { color: colour, width: 2.2, dash },
      marker: { symbol: marker, color: colour, size: 7, maxdisplayed: 8, opacity: 1, line: { width: 0 } },
      text: curve.median.map((v, i) => `${show(v)} [${curve.low[i] === null ? (GOAL > 0 ? "∞" : "−∞") : show(curve.low[i])}, ${curve.high[i] === null ? "∞" : show(curve.high[i])}]`),
      hovertemplate: "<b>%{fullData.name}</b><br>%{text}<br>at %{x:,} " + UNITS[state.axis] + "<extra></extra>",
    });
  });
  return { traces, layout: layoutOf({ xaxis: axisStyle(UNITS[state.axis], { rangemode: "tozero", showgrid: false, showline: true, ticks: "outside" }), yaxis: y }) };
};

const median = (values) => {
  const ordered = values.slice().sort((a, b) => a - b), n = ordered.length;
  return n ? (ordered[(n - 1) >> 1] + ordered[n >> 1]) / 2 : NaN;
};
const finalsChart = () => {
  const indices = shown().filter((index) => race.methods[index].runs.length), base = race.methods[race.order[0]];
  const baseline = new Map(base.runs.map((run) => [run.seed, run.final]));
  const paired = state.paired && base.runs.length > 0, ratio = race.scale === "ratio";
  const value = (run) => {
    if (!paired || run.final === null) return run.final;
    const against = baseline.get(run.seed);
    if (against === null || against === undefined) return null;
    return ratio ? run.final / against : run.final - against;
  };
  const rows = indices.map((index) => race.methods[index].runs.map((run) => ({ seed: run.seed, status: run.status, own: run.final, value: value(run) })));
  const known = rows.flat().map((cell) => cell.value).filter((v) => v !== null);
  const log = ratio && known.length > 0 && known.every((v) => v > 0);
  const [low, high] = spread(known, log), anyMissed = rows.flat().some((cell) => cell.own === null);
  // Misses stand beyond the worst value, on a line of their own.
  const away = narrow() ? 0.16 : 0.07, out = (part) => {
    const [edge, sign] = GOAL > 0 ? [high, 1] : [low, -1];
    return log ? edge * (high / low) ** (sign * part) : edge + sign * part * (high - low);
  };
  const beyond = out(away);
  const title = paired ? `${race.labels.deciding}, ${ratio ? "divided by" : "minus"} that of ${short(base.name)} on the same seed` : race.labels.deciding;
  const ends = !anyMissed ? [low, high] : GOAL > 0 ? [low, out(1.6 * away)] : [out(1.6 * away), high];
  const ticks = anyMissed && narrow() && GOAL > 0 ? logTicks(low, out(-0.12)) : logTicks(low, high);
  const axis = log ? logAxis(title, ...ends, ticks) : axisStyle(title, { range: ends });
  const heights = new Map(indices.map((index, position) => [index, indices.length - 1 - position]));
  const jitter = (seed, all) => (all.length > 1 ? 0.36 * (all.indexOf(seed) / (all.length - 1) - 0.5) : 0);
  const seeds = Array.from(new Set(rows.flat().map((cell) => cell.seed))).sort((a, b) => a - b);
  const traces = [], shapes = [], linkX = [], linkY = [];
  seeds.forEach((seed) => {
    rows.forEach((cells, position) => {
      const cell = cells.find((one) => one.seed === seed);
      if (!cell) return;
      linkX.push(cell.value === null ? (cell.own === null ? beyond : null) : cell.value);
      linkY.push(indices.length - 1 - position + jitter(seed, seeds));
    });
    linkX.push(null); linkY.push(null);
  });
  traces.push({ x: linkX, y: linkY, type: "scatter", mode: "lines", line: { width: 1, color: faded(theme().quiet, 0.25) }, hoverinfo: "skip", name: "same seed" });
  const labels = race.methods.map((method) => plain(short(method.name, narrow() ? 14 : 26)));
  indices.forEach((index, position) => {
    const { colour, marker } = look(index), cells = rows[position], done = cells.filter((cell) => cell.value !== null), missed = cells.filter((cell) => cell.own === null);
    const at = heights.get(index), order = cells.map((cell) => (cell.value === null ? GOAL * Infinity : cell.value)).sort((a, b) => a - b), middle = median(order);
    const [from, to] = race.methods[index].ranks.map((rank) => order[rank]);
    const inside = (v) => Math.min(Math.max(v, Math.min(...ends)), Math.max(...ends));
    if (!(paired && race.methods[index] === base)) {
      const finite = order.filter(Number.isFinite), box = (x0, x1, opacity) => shapes.push({ type: "rect", x0, x1, y0: at - 0.3, y1: at + 0.3, line: { width: 0 }, fillcolor: faded(colour, opacity), layer: "below" });
      if (finite.length) {
        const known = (v) => Math.min(Math.max(v, finite[0]), finite[finite.length - 1]);
        box(known(from), known(to), 0.2);
        if (inside(from) < known(from)) box(inside(from), known(from), 0.07);
        if (inside(to) > known(to)) box(known(to), inside(to), 0.07);
      }
    }
    if (Number.isFinite(middle)) shapes.push({ type: "line", x0: middle, x1: middle, y0: at - 0.34, y1: at + 0.34, line: { width: 3, color: colour } });
    traces.push({
      x: done.map((cell) => cell.value), y: done.map((cell) => at + jitter(cell.seed, seeds)), type: "scatter", mode: "markers", name: plain(race.methods[index].name), meta: "finals",
      marker: { symbol: marker, color: colour, size: 7.5, line: { width: 1, color: theme().page } },
      text: done.map((cell) => `seed ${cell.seed}: ${show(cell.value)}${paired ? ` (${show(cell.own)})` : ""}`), hovertemplate: "<b>%{fullData.name}</b><br>%{text}<extra></extra>",
    });
    if (missed.length) traces.push({
      x: missed.map(() => beyond), y: missed.map((cell) => at + jitter(cell.seed, seeds)), type: "scatter", mode: "markers", name: plain(race.methods[index].name), meta: "missed",
      marker: { ...MISSED, color: colour, line: { width: 2, color: colour } }, text: missed.map((cell) => `seed ${cell.seed}: ${plain(cell.status)}`), hovertemplate: "<b>%{fullData.name}</b><br>%{text}<extra></extra>",
    });
  });
  const annotations = anyMissed ? [{ x: log ? Math.log10(beyond) : beyond, xref: "x", y: 0, yref: "paper", yanchor: "top", yshift: -3, text: "missed", showarrow: false, font: { size: 12, color: theme().quiet } }] : [];
  if (paired) shapes.push({ type: "line", x0: ratio ? 1 : 0, x1: ratio ? 1 : 0, y0: 0, y1: 1, yref: "paper", line: { width: 1, color: theme().quiet, dash: "dot" }, layer: "below" });
  return { traces, layout: layoutOf({
    margin: { l: 20, r: 18, t: 10, b: 46 }, shapes, annotations, xaxis: axis,
    yaxis: axisStyle("", { range: [-0.6, indices.length - 0.4], tickvals: indices.map((index) => heights.get(index)), ticktext: indices.map((index) => labels[index]), tickfont: { size: 12.5, color: theme().text }, showgrid: false }),
  }) };
};

const reached = (run, axis, target) => {
  const values = run.validation, xs = column(run, axis);
  for (let i = 0; i < values.length; i += 1) {
    if (values[i] !== null && xs[i] !== null && !better(target, values[i])) return xs[i];
  }
  return Infinity;
};
const arrivals = () => shown().filter((index) => race.methods[index].runs.length).map((index) => {
  const times = race.methods[index].runs.map((run) => reached(run, state.axis, state.target)).sort((a, b) => a - b);
  return { index, times, middle: median(times), hits: times.filter(Number.isFinite).length };
});
const targetChart = () => {
  const all = arrivals(), last = Math.max(1e-9, ...race.methods.flatMap((method) => method.runs.map((run) => { const xs = column(run, state.axis); return xs.length ? xs[xs.length - 1] : 0; })));
  const traces = all.map(({ index, times, hits }, position) => {
    const { colour, dash, marker } = look(index), finite = times.filter(Number.isFinite), n = times.length, nudge = (position - all.length / 2) * 0.0025;
    const steps = Array.from(new Set(finite)), counts = steps.map((x) => finite.filter((time) => time <= x).length);
    const x = [0, ...steps, last], y = [0, ...counts, hits].map((count) => count / n + nudge);
    return {
      x, y, type: "scatter", mode: "lines+markers", name: plain(race.methods[index].name), meta: "arrivals", line: { shape: "hv", width: 2.2, color: colour, dash },
      marker: { symbol: marker, color: colour, size: x.map((_, i) => (i > 0 && i <= steps.length ? 6.5 : 0)), opacity: 1, line: { width: 0 } },
      text: [0, ...counts, hits].map((count) => `${count} of ${n} seeds`), hovertemplate: "<b>%{fullData.name}</b><br>%{text} by %{x:,} " + UNITS[state.axis] + "<extra></extra>",
    };
  });
  return { traces, layout: layoutOf({
    xaxis: axisStyle(UNITS[state.axis], { range: [0, last * 1.01], showgrid: false, showline: true, ticks: "outside" }),
    yaxis: axisStyle("share of seeds there", { range: [-0.02, 1.04], tickformat: ".0%", tickvals: [0, 0.25, 0.5, 0.75, 1] }),
  }) };
};

const trialValues = race.methods.flatMap((method) => method.trials.map((trial) => trial.validation)).filter((v) => v !== null);
const trialsChart = (index) => () => {
  const method = race.methods[index], { colour, marker } = look(index), hyper = state.hyper;
  const axis = method.axes.find((one) => one.name === hyper), log = race.scale === "ratio" && trialValues.every((v) => v > 0);
  const y = valueAxis("", trialValues, log), reach = y.range[1] - y.range[0], bottom = y.range[0] - 0.05 * reach, top = y.range[1];
  const roof = top + 0.09 * (top - bottom), line = log ? 10 ** (top + 0.05 * (top - bottom)) : top + 0.05 * (top - bottom);
  y.range = [bottom, roof];
  const done = method.trials.filter((trial) => trial.validation !== null), bad = method.trials.filter((trial) => trial.validation === null);
  const best = done.reduce((found, trial) => (found === null || better(trial.validation, found.validation) ? trial : found), null);
  const words = (trial) => Object.entries(trial.values).map(([key, v]) => `${plain(key)} = ${typeof v === "number" ? show(v, 3) : plain(v)}`).join("<br>");
  const others = race.methods.flatMap((one) => one.axes.filter((a) => a.name === hyper && a.kind !== "choice"));
  // Betas are searched evenly in log(1 - beta), and so they are drawn.
  const turned = others.length > 0 && others.every((one) => one.kind === "one_minus_log"), drawn = (value) => (turned ? 1 - value : value);
  const at = (trial) => drawn(trial.values[hyper]), hover = "%{text}<extra></extra>", title = turned ? `1 − ${hyper}` : hyper;
  const traces = [{
    x: done.map(at), y: done.map((trial) => trial.validation), type: "scatter", mode: "markers", name: plain(method.name), meta: "trials",
    marker: { symbol: marker, size: 8, color: faded(colour, 0.85) }, text: done.map((trial) => `${plain(race.labels.validation)} ${show(trial.validation)}<br>${words(trial)}`), hovertemplate: hover,
  }];
  if (best) traces.push({ x: [at(best)], y: [best.validation], type: "scatter", mode: "markers", hoverinfo: "skip", name: "best", marker: { symbol: "circle-open", size: 16, color: theme().text, line: { width: 1.8 } } });
  if (bad.length) traces.push({ x: bad.map(at), y: bad.map(() => line), type: "scatter", mode: "markers", name: "missed", text: bad.map((trial) => `${plain(trial.status)}<br>${words(trial)}`), hovertemplate: hover, marker: { ...MISSED, color: colour, line: { width: 2, color: colour } } });
  const logX = others.length > 0 && (turned || others.every((one) => one.kind === "log"));
  const bounds = others.flatMap((one) => [drawn(one.low), drawn(one.high)]), low = Math.min(...bounds), high = Math.max(...bounds);
  const pad = logX ? (high / low) ** 0.04 : 0.04 * (high - low);
  const x = axis.kind === "choice" ? axisStyle(title, { type: "category" }) : logX ? logAxis(title, low / pad, high * pad) : axisStyle(title, { range: [low - pad, high + pad], nticks: 5 });
  const shapes = [], vertical = (value, style) => shapes.push({ type: "line", x0: value, x1: value, y0: 0, y1: 1, yref: "paper", layer: "below", line: style });
  const basin = method.basin[hyper], standard = method.defaults ? method.defaults[hyper] : undefined;
  if (axis.kind !== "choice") {
    if (basin) shapes.push({ type: "rect", x0: drawn(basin.low), x1: drawn(basin.high), y0: 0, y1: 1, yref: "paper", layer: "below", line: { width: 0 }, fillcolor: faded(colour, 0.13) });
    [axis.low, axis.high].forEach((end) => vertical(drawn(end), { width: 1, color: theme().line }));
    if (typeof standard === "number" && (!logX || drawn(standard) > 0)) vertical(drawn(standard), { width: 1.2, color: theme().quiet, dash: "dash" });
  }
  return { traces, layout: layoutOf({ margin: { l: 48, r: 8, t: 4, b: 40 }, shapes, xaxis: { ...x, showgrid: false, showline: true, ticks: "outside", title: { ...x.title, standoff: 4 } }, yaxis: { ...y, nticks: 5 } }) };
};

const tuningChart = () => {
  const indices = shown().filter((index) => race.methods[index].axes.length), seen = indices.flatMap((index) => race.methods[index].tuning_curve.median);
  const log = race.scale === "ratio" && seen.every((v) => v === null || v > 0);
  const traces = indices.map((index) => {
    const { colour, dash, marker } = look(index), curve = race.methods[index].tuning_curve;
    return {
      x: curve.k, y: curve.median, type: "scatter", mode: "lines+markers", name: plain(race.methods[index].name), meta: "tuning", line: { color: colour, width: 2, dash }, marker: { symbol: marker, color: colour, size: 6.5, line: { width: 0 } },
      text: curve.expected.map((v) => (v === null ? "mean infinite" : `mean ${show(v)}`)), hovertemplate: "<b>%{fullData.name}</b><br>after %{x} trials: %{y:.4g}" + (curve.expected.length ? " (%{text})" : "") + "<extra></extra>",
    };
  });
  return { traces, layout: layoutOf({ xaxis: axisStyle("trials", { tick0: 0, dtick: Math.ceil(Math.max(1, ...indices.map((index) => race.methods[index].tuning_curve.k.length)) / 12), showgrid: false, showline: true, ticks: "outside" }), yaxis: valueAxis(`best ${race.labels.validation}`, seen, log) }) };
};

const betweenChart = () => {
  const mine = race.lines.filter((line) => line.a === state.from || line.b === state.from).map((line) => ({ other: line.a === state.from ? line.b : line.a, y: line.a === state.from ? line.y : line.y.slice().reverse(), x: line.x })).filter((line) => !state.hidden.has(line.other));
  const seen = mine.flatMap((line) => line.y), log = seen.every((v) => v === null || v > 0) && Math.max(...seen) > 20 * Math.min(...seen.filter((v) => v !== null));
  const traces = mine.map(({ other, x, y }) => {
    const { colour, dash, marker } = look(other);
    return { x, y, type: "scatter", mode: "lines+markers", name: plain(race.methods[other].name), meta: "between", line: { color: colour, width: 2, dash }, marker: { symbol: marker, color: colour, size: 6.5, line: { width: 0 } }, hovertemplate: "<b>to %{fullData.name}</b><br>%{x:.2f}: loss %{y:.4g}<extra></extra>" };
  });
  return { traces, layout: layoutOf({ xaxis: axisStyle("from one end point to the other", { range: [-0.02, 1.02], showgrid: false, showline: true, ticks: "outside" }), yaxis: valueAxis("training loss", seen, log) }) };
};

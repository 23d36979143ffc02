// The charts of a solved problem.
const found = drawn;
const chosen = { axis: "step" };

const convergence = () => {
  const { curves } = found, names = ["residual", "error"].filter((name) => curves[name]);
  const shown = names.length ? names : ["value"], x = curves[chosen.axis];
  const seen = shown.flatMap((name) => curves[name]).filter((v) => v !== null);
  const log = seen.every((v) => v >= 0) && seen.some((v) => v > 0);
  const traces = shown.map((name, index) => ({
    x, y: curves[name].map((v) => (log && v === 0 ? null : v)), type: "scatter", mode: "lines", name, meta: name,
    line: { color: look(index).colour, width: 2.2, dash: look(index).dash },
    hovertemplate: `${name} %{y:.3g}<br>at %{x:,} ${chosen.axis === "step" ? "iterations" : "seconds"}<extra></extra>`,
  }));
  const layout = { xaxis: axisStyle(chosen.axis === "step" ? "iterations" : "seconds", { rangemode: "tozero", showgrid: false, showline: true, ticks: "outside" }), yaxis: valueAxis(shown.join(" and "), seen, log) };
  if (shown.length > 1) Object.assign(layout, { showlegend: true, legend: { x: 1, xanchor: "right", y: 1, font: { size: 12.5, color: theme().text } } });
  return { traces, layout: layoutOf(layout) };
};

const spectrum = () => {
  const y = found.spectrum, log = y.every((v) => v > 0) && y[0] > 50 * y[y.length - 1];
  const traces = [{
    x: y.map((_, i) => i + 1), y, type: "scatter", mode: y.length <= 60 ? "markers+lines" : "lines", name: found.spectrum_name, meta: "spectrum",
    line: { color: look(0).colour, width: 1.6 }, marker: { size: 7, color: look(0).colour }, hovertemplate: "number %{x}: %{y:.4g}<extra></extra>",
  }];
  const values = log ? valueAxis(found.spectrum_name, y, true) : axisStyle(found.spectrum_name, { rangemode: "tozero" });
  return { traces, layout: layoutOf({ xaxis: axisStyle("number", { showgrid: false, showline: true, ticks: "outside", ...(y.length <= 12 ? { dtick: 1 } : {}) }), yaxis: values }) };
};

whenOpened(() => {
  addChart("convergence-chart", convergence);
  addChart("spectrum-chart", spectrum);
  document.querySelectorAll('input[name="axis"]').forEach((input) => input.addEventListener("change", () => { chosen.axis = input.value; refresh("convergence"); }));
  watchAll();
  // For tests and for the reader's console.
  window.thalweg = { found, charts, drawAll };
});

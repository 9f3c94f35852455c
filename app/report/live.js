// Replaces each still drawing by the live figure, in the reader's colour scheme, and again when the scheme changes.
(function () {
  "use strict";
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var figures = Array.prototype.slice.call(document.querySelectorAll("main figure"));

  function painted(text) {
    var spec = JSON.parse(text);
    if (dark.matches) {
      spec.dark.forEach(function (change) {
        var path = change[0], node = spec.figure;
        for (var i = 0; i < path.length - 1; i += 1) node = node[path[i]];
        node[path[path.length - 1]] = change[1];
      });
    }
    return spec.figure;
  }

  function draw(figure) {
    var plot = figure.querySelector(".plot");
    var data = figure.querySelector('script[type="application/json"]');
    if (!plot || !data) return;
    var spec = painted(data.textContent);
    figure.classList.add("live");
    Plotly.react(plot, spec.data, spec.layout, {
      responsive: true,
      displaylogo: false,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
      toImageButtonOptions: { format: "svg", filename: figure.id }
    }).catch(function () { figure.classList.remove("live"); });
  }

  // What is in a closed section has no width to be drawn in: it waits until the section opens.
  function drawAll() {
    figures.forEach(function (figure) {
      if (figure.closest("details.fold:not([open])")) return;
      try { draw(figure); } catch (error) { figure.classList.remove("live"); }
    });
  }

  // ?open=methods,errors opens these sections and every data table of theirs; ?open=all opens everything.
  function unfold() {
    var names = (new URLSearchParams(window.location.search).get("open") || "").split(",");
    names.forEach(function (name) {
      var place = name === "all" ? document : name && document.getElementById(name);
      if (!place) return;
      Array.prototype.forEach.call(place.querySelectorAll("details"), function (d) { d.open = true; });
    });
  }

  // A link to a section, or into one, opens it.
  function openTarget() {
    var id = window.location.hash.slice(1), place = id && document.getElementById(id);
    var fold = place && (place.closest("details.fold") || place.querySelector("details.fold"));
    if (fold && !fold.open) { fold.open = true; place.scrollIntoView(); }
  }

  unfold();
  openTarget();
  window.addEventListener("hashchange", openTarget);
  if (window.Plotly) {
    drawAll();
    document.querySelectorAll("details.fold").forEach(function (fold) { fold.addEventListener("toggle", drawAll); });
    dark.addEventListener("change", drawAll);
  }
}());

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

  function drawAll() {
    figures.forEach(function (figure) {
      try { draw(figure); } catch (error) { figure.classList.remove("live"); }
    });
  }

  // ?open=methods,errors unfolds every data table of those sections.
  function unfold() {
    var names = (new URLSearchParams(window.location.search).get("open") || "").split(",");
    names.forEach(function (name) {
      var place = name && document.getElementById(name);
      if (!place) return;
      Array.prototype.forEach.call(place.querySelectorAll("details"), function (d) { d.open = true; });
    });
  }

  unfold();
  if (window.Plotly) {
    drawAll();
    dark.addEventListener("change", drawAll);
  }
}());

// Draws the figures that are in view. Surfaces that leave it are let go, as browsers hold few 3-D canvases at a time.
(() => {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  // Buttons are named one by one, as others would send the figure to a service.
  const touch = matchMedia("(hover: none)").matches;
  const buttons = [["toImage", "zoom2d", "pan2d", "resetScale2d"]];
  const flat = { responsive: true, displaylogo: false, modeBarButtons: buttons, displayModeBar: touch ? false : "hover" };
  const solid = { responsive: true, displayModeBar: false };
  const isSolid = (holder) => holder.classList.contains("solid");

  function draw(holder) {
    if (holder.dataset.drawn) return;
    holder.dataset.drawn = "yes";
    const figure = figures[holder.dataset.figure];
    if (touch && !isSolid(holder)) figure.layout.dragmode = false; // fingers scroll the page
    Plotly.newPlot(holder, figure.data, figure.layout, isSolid(holder) ? solid : flat);
  }

  function letGo(holder) {
    if (!holder.dataset.drawn || !isSolid(holder)) return;
    delete holder.dataset.drawn;
    const canvases = [...holder.querySelectorAll("canvas")];
    Plotly.purge(holder); // the layout keeps the camera for the next time
    for (const canvas of canvases) {
      const gl = canvas.getContext("webgl2") || canvas.getContext("webgl");
      const extension = gl && gl.getExtension("WEBGL_lose_context");
      if (extension) extension.loseContext();
    }
  }

  const watch = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) entry.isIntersecting ? draw(entry.target) : letGo(entry.target);
    },
    { rootMargin: "100px" },
  );
  const holders = [...document.querySelectorAll("[data-figure]")];

  // A surface takes the wheel and the finger only once it was clicked or tapped: until then they scroll the page.
  let active = null;
  function activate(holder) {
    if (active) active.classList.remove("active");
    active = holder;
    if (active) active.classList.add("active");
  }
  document.addEventListener("pointerdown", (event) => {
    const holder = event.target.closest(".solid");
    if (event.pointerType === "mouse" || !holder) activate(holder);
  }, true);
  document.addEventListener("click", (event) => {
    const holder = event.target.closest(".solid");
    if (holder) activate(holder);
  }, true);
  for (const holder of holders.filter(isSolid)) {
    for (const kind of ["wheel", "touchstart", "touchmove", "touchend"]) {
      holder.addEventListener(kind, (event) => {
        if (active !== holder) event.stopPropagation();
      }, { capture: true, passive: true });
    }
  }

  const starts = {};
  for (const holder of holders.filter(isSolid)) {
    starts[holder.dataset.figure] = structuredClone(figures[holder.dataset.figure].layout.scene.camera);
  }
  for (const button of document.querySelectorAll("button[data-zoom]")) {
    button.addEventListener("click", () => {
      const holder = button.closest("figure").querySelector(".solid");
      draw(holder);
      const factor = Number(button.dataset.zoom);
      const camera = structuredClone(factor ? holder._fullLayout.scene._scene.getCamera() : starts[holder.dataset.figure]);
      for (const axis of factor ? ["x", "y", "z"] : []) {
        camera.eye[axis] = camera.center[axis] + factor * (camera.eye[axis] - camera.center[axis]);
      }
      Plotly.relayout(holder, { "scene.camera": camera });
    });
  }
  for (const holder of holders) watch.observe(holder);
})();

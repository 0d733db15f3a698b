// What the tests ask of a page of OHIF, which offers `cornerstone` and `services` to its console.
"use strict";

// Who has seen the tour is not shown it again.
localStorage.setItem("shownTours", JSON.stringify(["basicViewerTour"]));

window.dicomnode = {
  viewport() {
    return window.cornerstone?.getEnabledElements()[0]?.viewport;
  },

  // The address of the image that is drawn, or null before there is one.
  shown() {
    const viewport = this.viewport();
    return viewport?.viewportStatus === "rendered" ? viewport.getCurrentImageId() : null;
  },

  // The name of a series within the page, or null before the page has it.
  displaySet(seriesInstanceUID) {
    const found = window.services?.displaySetService
      .getActiveDisplaySets()
      .find((one) => one.SeriesInstanceUID === seriesInstanceUID);
    return found?.displaySetInstanceUID ?? null;
  },

  // Turn to an image of the stack, and say whether it is the one that is drawn.
  async turnTo(sopInstanceUID) {
    const isOf = (imageId) => imageId?.includes(`/instances/${sopInstanceUID}/`) ?? false;
    const shown = this.shown();
    if (shown === null || isOf(shown)) return isOf(shown);
    const viewport = this.viewport();
    const index = viewport.getImageIds().findIndex(isOf);
    if (index >= 0) {
      await viewport.setImageIdIndex(index);
      viewport.render();
    }
    return isOf(this.shown());
  },

  // Where points in patient coordinates lie on the canvas: [x, y] of each, as CSS counts.
  places(points) {
    const viewport = this.viewport();
    return points.map((point) => [...viewport.worldToCanvas(point)]);
  },

  // Where pixels lie, given by column and row, of an image that does not say where it lies.
  placesOfPixels(pixels) {
    const viewport = this.viewport();
    const { imageData } = viewport.getImageData();
    return this.places(pixels.map(([column, row]) => imageData.indexToWorld([column, row, 0])));
  },

  // The colour of the canvas at each place: [red, green, blue]; nulls beside it.
  colors(places) {
    const { canvas } = this.viewport();
    const { width, height } = canvas;
    const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    const scale = width / canvas.clientWidth;
    return places.map((place) => {
      const [x, y] = place.map((one) => Math.floor(one * scale));
      const at = 4 * (y * width + x);
      const isInside = 0 <= x && x < width && 0 <= y && y < height;
      return isInside ? [...data.slice(at, at + 3)] : [null, null, null];
    });
  },

  // The corners of each line that is drawn over the canvas.
  lines() {
    const corners = (line) => [...line.points].map(({ x, y }) => [x, y]);
    return [...document.querySelectorAll("svg.svg-layer polyline")].map(corners);
  },

  // The lines of each text that is written over the canvas.
  texts() {
    const lines = (text) => [...text.querySelectorAll("tspan")].map((one) => one.textContent);
    return [...document.querySelectorAll("svg.svg-layer text")].map(lines);
  },
};

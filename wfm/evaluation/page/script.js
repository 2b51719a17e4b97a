"use strict";
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const one = (selector, root = document) => root.querySelector(selector);
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  all(".segments, .transport, #theme").forEach((part) => { part.hidden = false; });

  // Light and dark.
  one("#theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // One subset of the result at a time.
  const segments = all(".segments button");
  const choose = (name) => {
    segments.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.subset === name)));
    all(".subset").forEach((card) => { card.hidden = card.dataset.subset !== name; });
  };
  segments.forEach((button) => button.addEventListener("click", () => choose(button.dataset.subset)));
  if (segments.length) choose((segments.find((b) => b.dataset.subset === "fixed_rate" && one(`.subset[data-subset="fixed_rate"] .gains`)) || segments[0]).dataset.subset);

  // Videos: all play and step together; those out of sight rest.
  const cards = all(".video-card").map((card) => ({
    card, video: one("video", card), past: +card.dataset.past, frames: +card.dataset.frames, fps: +card.dataset.fps,
    head: one(".head", card), when: one(".when", card), frame: one(".frame", card), seen: false, begun: false,
  }));
  const play = one("#play"), position = one("#position"), speed = one("#speed");
  let playing = false;
  const index = (c) => Math.min(c.frames - 1, Math.max(0, Math.floor(c.video.currentTime * c.fps + 1e-3)));
  const paint = (c) => {
    const at = index(c), ahead = at - c.past + 1;
    c.head.style.left = `${(100 * (at + 0.5)) / c.frames}%`;
    c.when.textContent = ahead > 0 ? `predicted, +${(ahead / c.fps).toFixed(2)} s` : "given";
    c.when.classList.toggle("predicted", ahead > 0);
    c.frame.textContent = `${at + 1} / ${c.frames}`;
    if (c === cards[0] && position) position.textContent = `frame ${at + 1} of ${c.frames}`;
  };
  const apply = () => {
    cards.forEach((c) => {
      c.video.playbackRate = speed ? +speed.value : 1;
      if (!playing || !c.seen) return c.video.pause();
      if (!c.begun) { c.begun = true; c.video.currentTime = 0; }
      c.video.play().catch(() => {});
    });
    if (play) { play.textContent = playing ? "Pause" : "Play all"; play.setAttribute("aria-pressed", String(playing)); }
  };
  const show = (c, frame) => { c.video.currentTime = (Math.min(frame, c.frames - 1) + 0.5) / c.fps; };
  const step = (by) => {
    playing = false; apply();
    if (!cards.length) return;
    const first = cards[0], target = (index(first) + by + first.frames) % first.frames;
    cards.forEach((c) => { c.begun = true; show(c, target); });
  };
  if (cards.length) {
    const watch = new IntersectionObserver((entries) => {
      entries.forEach((entry) => { cards.find((c) => c.card === entry.target).seen = entry.isIntersecting; });
      apply();
    }, { rootMargin: "80px" });
    cards.forEach((c) => {
      watch.observe(c.card);
      c.video.addEventListener("seeked", () => paint(c));
      // Until it plays a card shows the furthest prediction, not what was given.
      const last = () => { if (!c.begun) show(c, c.frames - 1); };
      if (c.video.readyState >= 1) last(); else c.video.addEventListener("loadedmetadata", last, { once: true });
    });
    const loop = () => { if (playing) cards.forEach((c) => { if (c.seen) paint(c); }); requestAnimationFrame(loop); };
    requestAnimationFrame(loop);
    playing = !still;
    apply();
  }
  if (play) {
    play.addEventListener("click", () => { playing = !playing; apply(); });
    one("#back").addEventListener("click", () => step(-1));
    one("#forward").addEventListener("click", () => step(1));
    speed.addEventListener("change", apply);
  }

  // Charts: a cursor that reads the nearest values.
  const SVG = "http://www.w3.org/2000/svg";
  all("svg.chart").forEach((svg) => {
    const data = JSON.parse(svg.dataset.chart), [left, top, right, bottom] = data.box;
    const cursor = one(".cursor", svg), readout = one(".readout", svg.closest("figure"));
    const clear = () => { cursor.replaceChildren(); readout.textContent = ""; };
    const show = (event) => {
      const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
      const across = ((event.clientX - box.left) / box.width) * view.width;
      if (across < left || across > right) return clear();
      const wanted = data.x[0] + ((across - left) / (right - left)) * (data.x[1] - data.x[0]);
      const line = document.createElementNS(SVG, "path"), said = [];
      let at = null;
      data.series.forEach((series) => {
        let best = 0;
        series.x.forEach((x, i) => { if (Math.abs(x - wanted) < Math.abs(series.x[best] - wanted)) best = i; });
        at = at === null ? series.x[best] : at;
        said.push(`${series.name} ${Number(series.y[best].toPrecision(4))}`);
      });
      line.setAttribute("d", `M${left + ((at - data.x[0]) / (data.x[1] - data.x[0])) * (right - left)} ${top}V${bottom}`);
      cursor.replaceChildren(line);
      readout.textContent = `${data.label} ${Number(at.toPrecision(4))}: ${said.join(" · ")}`;
    };
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", clear);
  });

  // Lineage: point at an artifact to see what it is made from.
  all("svg.lineage").forEach((svg) => {
    const frame = svg.parentElement;
    frame.scrollLeft = (frame.scrollWidth - frame.clientWidth) / 2;
    const nodes = all(".node", svg), edges = all(".edge", svg);
    const pick = (key) => {
      const on = new Set([key]), queue = [key];
      while (queue.length) {
        const to = queue.pop();
        edges.filter((e) => e.dataset.to === to && !on.has(e.dataset.from)).forEach((e) => { on.add(e.dataset.from); queue.push(e.dataset.from); });
      }
      svg.classList.add("picking");
      nodes.forEach((n) => n.classList.toggle("on", on.has(n.dataset.key)));
      edges.forEach((e) => e.classList.toggle("on", on.has(e.dataset.from) && on.has(e.dataset.to)));
    };
    const drop = () => { svg.classList.remove("picking"); [...nodes, ...edges].forEach((part) => part.classList.remove("on")); };
    nodes.forEach((n) => {
      n.addEventListener("pointerenter", () => pick(n.dataset.key));
      n.addEventListener("pointerleave", drop);
      n.addEventListener("focus", () => pick(n.dataset.key));
      n.addEventListener("blur", drop);
    });
  });

  // Mark the section in view.
  const links = all(".contents a");
  const spy = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    links.forEach((link) => link.classList.toggle("here", link.hash === `#${entry.target.id}`));
  }), { rootMargin: "-30% 0px -60% 0px" });
  all("main section").forEach((section) => spy.observe(section));
})();

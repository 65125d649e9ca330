// What the checks ask of a page; each function returns what is wrong, as lines.
const checks = {
  // Colours of every text against what is behind it, by WCAG 2: 4.5, or 3 for large text.
  contrast() {
    const parse = (text) => (text.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
    const over = ([r, g, b, a = 1], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
    const linear = (c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
    const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const behind = (element) => {
      const layers = [];
      for (let e = element; e; e = e.parentElement) {
        const colour = parse(getComputedStyle(e).backgroundColor);
        layers.push(colour);
        if (colour.length < 4 || colour[3] === 1) break;
      }
      return layers.reduceRight((under, layer) => over(layer, under), [255, 255, 255]);
    };
    // Of a drawing: the shape that lies under the middle of the text.
    const shape = (text) => {
      text.scrollIntoView({ block: "center" });
      const box = text.getBoundingClientRect();
      const stack = document.elementsFromPoint(box.x + box.width / 2, box.y + box.height / 2);
      const under = stack.find((e) => e instanceof SVGGeometryElement && getComputedStyle(e).fill !== "none");
      if (!under) return behind(text.ownerSVGElement.parentElement);
      const style = getComputedStyle(under), [r, g, b, a = 1] = parse(style.fill);
      return over([r, g, b, a * Number(style.fillOpacity) * Number(style.opacity)], behind(text.ownerSVGElement.parentElement));
    };
    const wrong = new Map(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const drawn = new Map();
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const element = node.parentElement;
      if (!node.data.trim() || !element.checkVisibility({ visibilityProperty: true }) || /^(TITLE|DESC|SCRIPT)$/i.test(element.tagName)) continue;
      const isDrawn = element instanceof SVGElement, style = getComputedStyle(element);
      if (isDrawn) {
        const like = `${element.getAttribute("class")} ${element.parentElement.getAttribute("class")} ${style.fill}`;
        if ((drawn.get(like) || 0) >= 4) continue;
        drawn.set(like, (drawn.get(like) || 0) + 1);
      }
      const back = isDrawn ? shape(element) : behind(element);
      const front = over(parse(isDrawn ? style.fill : style.color), back);
      const [a, b] = [light(front), light(back)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
      const size = parseFloat(style.fontSize), isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      if (ratio < (isLarge ? 3 : 4.5)) {
        const name = `${element.tagName.toLowerCase()}.${element.getAttribute("class") || ""}`;
        wrong.set(`${name} ${ratio.toFixed(2)}:1`, node.data.trim().slice(0, 40));
      }
    }
    return [...wrong].map(([what, text]) => `${what} (${text})`);
  },
  // What makes the page itself wider than the window.
  overflow() {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return [];
    const isIn = (e) => { for (let p = e.parentElement; p; p = p.parentElement) if (getComputedStyle(p).overflowX !== "visible") return true; return false; };
    const wide = [...document.body.querySelectorAll("*")].filter((e) => e.getBoundingClientRect().right > width + 1 && !isIn(e));
    return [`${document.documentElement.scrollWidth} px in ${width}: ` + wide.slice(0, 3).map((e) => `${e.tagName.toLowerCase()}.${e.getAttribute("class") || ""}#${e.id}`).join(", ")];
  },
  // Names for what has no text, and labels for what is filled in.
  names() {
    const wrong = [];
    for (const image of document.querySelectorAll("img:not([alt])")) wrong.push(`img without alt: ${image.src}`);
    for (const drawing of document.querySelectorAll("svg:not([aria-hidden=true])")) {
      if (!drawing.closest("[aria-hidden=true]") && !drawing.getAttribute("aria-label") && !drawing.getAttribute("aria-labelledby") && !drawing.querySelector(":scope > title")) wrong.push("svg without a name");
    }
    for (const field of document.querySelectorAll("input, select, button")) {
      if (!field.labels?.length && !field.textContent.trim() && !field.getAttribute("aria-label")) wrong.push(`${field.tagName} without a label: ${field.name || field.id}`);
    }
    return wrong;
  },
};
return checks[arguments[0]]();

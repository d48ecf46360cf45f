"""Can the text of a widget be read? Contrast as WCAG 2.2 defines it, of what the browser paints."""

#: The least contrast of plain text, WCAG 2.2, success criterion 1.4.3.
LEAST = 4.5

# Colours are read back from a canvas, as they may be given in any notation; each text's colour
# counts with the opacity of all that it is in, over the nearest background that is opaque.
_CONTRASTS = """(box) => {
    const pen = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgba = (color) => {
        pen.clearRect(0, 0, 1, 1);
        pen.fillStyle = color;
        pen.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = ([r, g, b, a], below) =>
        [r, g, b].map((c, i) => c * a + below[i] * (1 - a));
    const ancestors = (e) => e ? [e, ...ancestors(e.parentElement)] : [];
    const background = (element) => {
        let color = [255, 255, 255];
        for (const e of ancestors(element).reverse()) {
            color = over(rgba(getComputedStyle(e).backgroundColor), color);
        }
        return color;
    };
    const luminance = (color) => {
        const [r, g, b] = color.map((c) => c / 255).map(
            (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    const texts = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        const text = texts.currentNode.textContent.trim();
        if (!text || element.tagName === 'STYLE' || !element.checkVisibility(
            { opacityProperty: true, visibilityProperty: true })) continue;
        const opacity = ancestors(element).reduce((o, e) => o * getComputedStyle(e).opacity, 1);
        const below = background(element);
        const [r, g, b, a] = rgba(getComputedStyle(element).color);
        const lights = [luminance(over([r, g, b, a * opacity], below)), luminance(below)];
        const [low, high] = lights.sort((one, other) => one - other);
        found.push([text, (high + 0.05) / (low + 0.05)]);
    }
    return found;
}"""


def illegible(widget):
    """The texts of a widget, a locator, that have too little contrast, and how much they have."""
    contrasts = widget.evaluate(_CONTRASTS)
    assert contrasts, "there is no text"
    return {text: round(contrast, 2) for text, contrast in contrasts if contrast < LEAST}

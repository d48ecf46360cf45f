"""Drawing with the mouse."""


def lasso(tab, canvas, left, top, right, bottom):
    """Draw around a rectangle, given in shares of a canvas's width and height."""
    box = canvas.bounding_box()
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top + 0.05)]
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    tab.mouse.move(*points[0])
    tab.mouse.down()
    for point in points[1:]:
        tab.mouse.move(*point, steps=8)
    tab.mouse.up()

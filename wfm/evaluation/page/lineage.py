"""The graph of artifacts as inline SVG, from the sources at the top to the page at the bottom."""

from markupsafe import Markup, escape

from wfm.evaluation.page.data import LineageNode

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, PAD = 196, 42, 18, 34, 10


def layers(nodes: list[LineageNode]) -> list[list[LineageNode]]:
    """Nodes by longest distance from a source; within a layer ordered by where their parents stand, so that few edges
    cross."""
    by_key = {node.key: node for node in nodes}
    depth: dict[str, int] = {}

    def of(key: str, above: frozenset[str] = frozenset()) -> int:
        if key not in depth:
            known = [p for p in by_key[key].parents if p in by_key and p not in above and p != key]
            depth[key] = 1 + max((of(parent, above | {key}) for parent in known), default=-1)
        return depth[key]

    for key in by_key:
        of(key)
    found: list[list[LineageNode]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in sorted(nodes, key=lambda node: node.name):
        found[depth[node.key]].append(node)
    place: dict[str, float] = {}
    for layer in found:
        middle = {n.key: _mean([place[p] for p in n.parents if p in place]) for n in layer}
        layer.sort(key=lambda node: (middle[node.key], node.name))
        for index, node in enumerate(layer):
            place[node.key] = index - (len(layer) - 1) / 2
    return found


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def lineage_svg(nodes: list[LineageNode]) -> Markup:
    """The SVG; empty without nodes. A parent that is not among the nodes is left out."""
    stacked = layers(nodes)
    if not stacked:
        return Markup("")
    widest = max(len(layer) for layer in stacked)
    width = widest * BOX_WIDTH + (widest - 1) * GAP_X + 2 * PAD
    height = len(stacked) * BOX_HEIGHT + (len(stacked) - 1) * GAP_Y + 2 * PAD
    corner: dict[str, tuple[float, float]] = {}
    for row, layer in enumerate(stacked):
        span = len(layer) * BOX_WIDTH + (len(layer) - 1) * GAP_X
        for column, node in enumerate(layer):
            corner[node.key] = ((width - span) / 2 + column * (BOX_WIDTH + GAP_X), PAD + row * (BOX_HEIGHT + GAP_Y))
    edges, boxes = [], []
    above = {node.key: set(node.parents) for node in nodes}
    for node in nodes:
        x, y = corner[node.key]
        for parent in dict.fromkeys(node.parents):
            if parent in corner and parent != node.key:
                px, py = corner[parent]
                start, end = (px + BOX_WIDTH / 2, py + BOX_HEIGHT), (x + BOX_WIDTH / 2, y)
                bend = min(max((end[1] - start[1]) / 2, 14), 40)
                kind = "edge implied" if _implied(parent, node, above) else "edge"
                edges.append(
                    f'<path class="{kind}" data-from="{escape(parent)}" data-to="{escape(node.key)}" '
                    f'd="M{start[0]:.0f} {start[1]:.0f}C{start[0]:.0f} {start[1] + bend:.0f} '
                    f'{end[0]:.0f} {end[1] - bend:.0f} {end[0]:.0f} {end[1]:.0f}"/>'
                )
        boxes.append(_box(node, x, y))
    return Markup(
        f'<svg class="lineage" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" '
        f'aria-label="Graph of {len(nodes)} artifacts from the sources to this page">{"".join(edges)}{"".join(boxes)}</svg>'
    )


def _implied(parent: str, node: LineageNode, above: dict[str, set[str]]) -> bool:
    """Whether another input of `node` is itself made from `parent`: that edge is shown only when asked for."""
    waiting, seen = [key for key in node.parents if key != parent], {node.key}
    while waiting:
        key = waiting.pop()
        if key == parent:
            return True
        if key not in seen:
            seen.add(key)
            waiting += above.get(key, ())
    return False


def _box(node: LineageNode, x: float, y: float) -> str:
    """One artifact: its name, and below it the start of its key and its kind."""
    full = f"{node.name} ({node.kind}) {node.key}"
    return (
        f'<g class="node" tabindex="0" data-key="{escape(node.key)}"><title>{escape(full)}</title>'
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"/>'
        f'<text x="{x + 10:.0f}" y="{y + 18:.0f}">{escape(_short(node.name))}</text>'
        f'<text class="key" x="{x + 10:.0f}" y="{y + 33:.0f}">{escape(_short(f"{node.key[:10]} · {node.kind}", 27))}</text></g>'
    )


def _short(text: str, most: int = 28) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"

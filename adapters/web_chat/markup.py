"""HTML and SVG as trees, so that whatever a text holds stays text."""

from xml.etree.ElementTree import Element, SubElement, tostring

Child = Element | str


def tag(name: str, *children: Child, **attributes: object) -> Element:
    """An element; `class_` stands for class, and `aria_label` for aria-label."""
    node = Element(name, {key.rstrip("_").replace("_", "-"): str(value) for key, value in attributes.items()})
    for child in children:
        if isinstance(child, Element):
            node.append(child)
        elif len(node):
            node[-1].tail = (node[-1].tail or "") + child
        else:
            node.text = (node.text or "") + child
    return node


def page(title: str, sheet: str, *content: Element) -> str:
    """A whole document with one style sheet and no script."""
    head = tag("head", tag("meta", charset="utf-8"), tag("title", title))
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    SubElement(head, "meta", name="color-scheme", content="light dark")
    SubElement(head, "link", rel="stylesheet", href=sheet)
    html = tag("html", head, tag("body", *content), lang="en")
    return "<!doctype html>\n" + tostring(html, encoding="unicode", method="html")

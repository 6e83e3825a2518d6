"""Takes the text of an XML file, gives its root; document types, and the entities that come with them, are refused."""

import re
from xml.etree.ElementTree import Element

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")


def parsed(text: str, tag: str) -> Element:
    """Root of an XML file.

    Parameters
    ----------
    text
        The file, decoded; what it says of its encoding is passed over.
    tag
        Name that the root must have.

    Raises
    ------
    ValueError
        If it is not XML, which the message says of a line, declares a document type or entities, or has another root.
    """
    declared = DECLARATION.match(text)
    # Lines are kept, so that errors name the right one.
    body = "\n" * declared[0].count("\n") + text[declared.end() :] if declared else text
    try:
        root: Element = defusedxml.ElementTree.fromstring(body.encode(), forbid_dtd=True)
    except DefusedXmlException as error:
        raise ValueError(f"it declares a document type or entities, which a {tag} does not have") from error
    except defusedxml.ElementTree.ParseError as error:
        raise ValueError(f"line {error.position[0]}: this is not XML ({error})") from error
    if root.tag != tag:
        raise ValueError(f"this describes a {root.tag!r}; expected a {tag!r}")
    return root

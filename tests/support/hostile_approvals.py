"""Approvals whose every text may hold anything, for properties of what a person is shown."""

import json
import unicodedata

from hypothesis import strategies as st

from authz.approvals.characters import hidden_name
from authz_client.v1 import approvals_pb2

__all__ = ["TEXTS", "approvals", "is_raw"]

# Every code point, and more often those that deceive.
CHARACTERS = st.one_of(
    st.characters(codec=None),
    st.sampled_from("\x00\x07\x1b\x7f\x9b\r\n\t\u00a0\u00ad\u200b\u200d\u202e\u2066\u2028\ufeff"),
    st.sampled_from("\u0430\u0301\U000e0041\ud800\u2800\u3164⟦⟧<>&[]│'\"`"),
    st.characters(min_codepoint=32, max_codepoint=126),
)
TEXTS = st.text(CHARACTERS, max_size=60)
UTF8 = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from("\x1b\u202e\u200b\u0430⟦[<")),
    max_size=40,
)
ARGUMENTS = st.dictionaries(
    TEXTS,
    st.recursive(
        st.one_of(TEXTS, st.integers(), st.booleans(), st.none()),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=3)
        ),
        max_leaves=6,
    ),
    max_size=6,
)


@st.composite
def approvals(draw: st.DrawFn) -> approvals_pb2.Approval:
    """Return an approval whose every text may hold anything."""
    made = approvals_pb2.Approval(
        id=draw(st.from_regex(r"[0-9a-f]{32}-[1-9]", fullmatch=True)),  # made by the engine
        operation=draw(UTF8),
        kinds=[draw(UTF8)],
        subject=draw(UTF8),
        agents=[draw(UTF8)],
        purpose=draw(UTF8),
        effects=[draw(UTF8)],
        resource=draw(UTF8),
        labels=[draw(UTF8)],
        digest=b"d" * 32,
        arguments_json=json.dumps(draw(ARGUMENTS)).encode(),
    )
    made.destinations.add(value=draw(UTF8), destination_class=draw(UTF8), host=draw(UTF8))
    made.objects.add(role="target", pointer=draw(UTF8), value_json=json.dumps(draw(TEXTS)))
    made.reasons.add(kind=draw(UTF8), policy_id=draw(UTF8), reason=draw(UTF8), place=draw(UTF8))
    made.ignored.add(place=draw(UTF8), value=draw(UTF8))
    made.answers.add(queue=draw(UTF8), person=draw(UTF8), comment=draw(UTF8), method=draw(UTF8))
    if draw(st.booleans()):
        made.last_approved.arguments_json = json.dumps(draw(ARGUMENTS)).encode()
        made.last_approved.approved_by.append(draw(UTF8))
    return made


def is_raw(character: str) -> bool:
    """Return whether a character must not reach a reader: by our data, and by Python's own."""
    is_bidi = unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF") or (
        unicodedata.bidirectional(character) in ("LRI", "RLI", "FSI", "PDI", "BN")
    )
    is_control = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return is_bidi or is_control or hidden_name(character) is not None

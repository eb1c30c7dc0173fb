"""The look-ups are pydicom's, and pydicom itself is not loaded for them."""

import runpy
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import _uid_dict, charset, datadict

from workers.dataset.character_sets import CODECS
from workers.dataset.dictionary import private_vr, public_vr
from workers.dataset.pydicom_tables import PRIVATE, PUBLIC, REPEATERS, UIDS

_TAGS = st.integers(0, 0xFFFF_FFFF)
_REPEATED = st.sampled_from([*REPEATERS]).flatmap(
    lambda mask: st.text("0123456789ABCDEF", min_size=8, max_size=8).map(
        lambda digits: int(
            "".join(other if digit == "x" else digit for digit, other in zip(mask, digits, strict=True)), 16
        )
    )
)


def pydicoms_public_vr(tag: int) -> str:
    try:
        return datadict.dictionary_VR(tag)
    except KeyError:
        return "UN"


def pydicoms_private_vr(tag: int, creator: str) -> str:
    try:
        vr = datadict.private_dictionary_VR(tag, creator)
    except KeyError:
        return "UN"
    return vr if len(vr) == 2 else "UN"


def test_every_public_element_is_as_pydicom_has_it() -> None:
    """And every UID and character set."""
    assert {tag: public_vr(tag) for tag in PUBLIC} == {tag: pydicoms_public_vr(tag) for tag in PUBLIC}
    assert datadict.DicomDictionary == PUBLIC  # type: ignore[attr-defined]  # re-exported, though unmarked
    # Not as it is by now in this process: pynetdicom, where a test has loaded it, adds to it.
    assert runpy.run_path(_uid_dict.__file__)["UID_dictionary"] == UIDS
    # Latin 9 (PS3.3 C.12.1.1.2) pydicom does not know yet.
    latin_9 = dict.fromkeys(("ISO_IR 203", "ISO 2022 IR 203"), "iso8859_15")
    assert charset.python_encoding | latin_9 == CODECS


@given(_TAGS | _REPEATED)
def test_any_tag_is_as_pydicom_has_it(tag: int) -> None:
    """Repeating groups (PS3.5 7.6) and what no dictionary knows."""
    assert public_vr(tag) == pydicoms_public_vr(tag)


@given(st.sampled_from([*PRIVATE]) | st.just("nobody's"), st.data())
def test_any_private_element_is_as_pydicom_has_it(creator: str, data: st.DataObject) -> None:
    """In whatever block its creator has reserved (PS3.5 7.8.1)."""
    masks = [*PRIVATE.get(creator, {"0029xx10": ()})]
    digits = data.draw(st.sampled_from(masks)).replace("x", data.draw(st.sampled_from("019AEF")))
    tag = int(digits, 16)
    assert private_vr(tag, creator) == pydicoms_private_vr(tag, creator)


@pytest.mark.real
def test_a_process_that_decodes_nothing_loads_no_numpy() -> None:
    """It would take a third of a worker's start, and of its memory before the first image."""
    program = (
        "import sys, workers.cli.worker, workers.cli.ledger, workers.cli.status, workers.cli.report;"
        "print({'numpy', 'pydicom', 'PIL'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"

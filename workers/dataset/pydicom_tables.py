"""pydicom's tables alone, without the rest of pydicom: the data dictionary, private dictionaries and UIDs (PS3.6).

To import the package loads its readers, numpy and Pillow with it: a fifth of a second and some 30 MiB of each process that
wants to know a VR. The modules of the tables are generated, hold data and import nothing.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Final


def _module(name: str) -> ModuleType:
    package = importlib.util.find_spec("pydicom")  # found, not run
    assert package is not None
    assert package.submodule_search_locations
    path = Path(package.submodule_search_locations[0], f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"{__name__}.{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_PUBLIC: Final = _module("_dicom_dict")

# Tag -> VR, VM, name, retired, keyword.
PUBLIC: Final[Mapping[int, tuple[str, ...]]] = _PUBLIC.DicomDictionary
# The same of repeating groups; x in a tag is any digit.
REPEATERS: Final[Mapping[str, tuple[str, ...]]] = _PUBLIC.RepeatersDictionary
# Creator -> tag, with x for any digit -> VR, VM, name, retired.
PRIVATE: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = _module("_private_dict").private_dictionaries
# UID -> name, type, info, retired, keyword.
UIDS: Final[Mapping[str, tuple[str, ...]]] = _module("_uid_dict").UID_dictionary

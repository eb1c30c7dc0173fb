"""The stores of the tests of stages."""

import pytest


@pytest.fixture(
    params=[
        "",
        pytest.param("minio_url", marks=[pytest.mark.real, pytest.mark.xdist_group("buckets")]),
    ],
    ids=["directory", "minio"],
)
def url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param) if request.param else ""

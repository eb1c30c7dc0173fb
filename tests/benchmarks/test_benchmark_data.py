"""The benchmarks' instances are what they claim to be, and their messages say what the standard says."""

from io import BytesIO

import pydicom
import pytest

from benchmarks.codec_calls import encode_and_prove
from benchmarks.data import EXPLICIT_VR_LITTLE_ENDIAN, KINDS, UidSeries, grey_frame, template
from benchmarks.messages import (
    Message,
    UnexpectedAnswer,
    accepted_pdu_length,
    associate_accept,
    check_response,
    response_pdu,
    store_message,
)
from benchmarks.micro.association import established
from ingest.association import Fragment, FragmentRun
from ingest.contract.identifiers import check_uid
from ingest.dimse import CStoreRequest, MessageAssembler, MessageBegun

MEGABYTES = {
    "small": 40 / 1024,
    "mr": 1 / 8,
    "ct": 1 / 2,
    "dx": 15,
    "cine": 8,
    "multi-frame": 256,
    "huge": 2047.5,
}


def received(message: Message) -> tuple[CStoreRequest, bytes]:
    """What the product's own protocol core reads from the message's PDUs."""
    association, assembler = established(), MessageAssembler()
    request, data = None, b""
    for piece in (memoryview(message.first), *message.rest):
        association.receive_data(piece)
        while (event := association.next_event()) is not None:
            if isinstance(event, FragmentRun):
                assert assembler.receive_run(event) is event
                data += event.rows.tobytes()
            if not isinstance(event, Fragment):
                continue
            item = assembler.receive(event)
            if isinstance(item, MessageBegun):
                assert isinstance(item.message, CStoreRequest)
                request = item.message
            elif item is not None:
                data += bytes(event.data)
    assert request is not None
    assert not assembler.in_message
    return request, data


@pytest.mark.parametrize("name", KINDS)
def test_sizes_are_those_stated(name: str) -> None:
    """A kind's pixel data has the size that the report names, and only a few frames are ever held."""
    kind = KINDS[name]
    assert kind.pixel_size == MEGABYTES[name] * 2**20
    if name != "dx":
        found = template(kind)
        assert found.size == len(found.head) + sum(len(frame) for frame in found.frames())
        assert len(found.distinct_frames) <= 8


@pytest.mark.parametrize("name", ["small", "ct", "cine"])
def test_another_toolkit_reads_the_instance(name: str) -> None:
    """A data set of any kind opens in pydicom with its identity, and its pixels are the generator's."""
    uid, instance = UidSeries(7, 1).next(), template(KINDS[name])
    found = pydicom.dcmread(BytesIO(b"".join((instance.head_with(uid), *instance.frames()))), force=True)
    found.file_meta.TransferSyntaxUID = pydicom.uid.UID(EXPLICIT_VR_LITTLE_ENDIAN)
    assert found.SOPInstanceUID == uid.decode()
    assert len({found.SOPInstanceUID, found.StudyInstanceUID, found.SeriesInstanceUID}) == 3
    pixels = found.pixel_array if KINDS[name].frames == 1 else found.pixel_array[0]
    assert (pixels == grey_frame(KINDS[name], 1, 0)).all()


def test_pixels_compress_like_images() -> None:
    """JPEG 2000 Lossless makes of every kind what it makes of real images: neither noise nor zeros."""
    for name in ("small", "mr", "ct"):
        frame = template(KINDS[name]).distinct_frames[0]
        assert 2 < len(frame) / len(encode_and_prove(KINDS[name], frame)) < 4


def test_a_seed_gives_the_same_instance_for_ever() -> None:
    """Equal seeds give equal bytes, other seeds and frames others."""
    kind = KINDS["small"]
    assert (grey_frame(kind, 3, 0) == grey_frame(kind, 3, 0)).all()
    assert (grey_frame(kind, 3, 0) != grey_frame(kind, 4, 0)).any()
    assert (grey_frame(kind, 3, 0) != grey_frame(kind, 3, 1)).any()


def test_uids_never_repeat() -> None:
    """Series of different runs and senders have no UID in common, and each is a valid UID of one length."""
    series = [UidSeries(run, sender) for run in (1, 2) for sender in (1, 2)]
    uids = [found.next() for found in series for _ in range(100)]
    assert len(set(uids)) == 400
    assert {len(check_uid(uid.decode())) for uid in uids} == {UidSeries.LENGTH}


@pytest.mark.parametrize("name", ["small", "ct", "cine"])
@pytest.mark.parametrize("pdu_length", [4096, 16 * 1024, 128 * 1024])
def test_a_patched_message_is_another_instance(name: str, pdu_length: int) -> None:
    """The PDUs carry the template's data set with the patched UID in command and data set, and nothing else changes."""
    found = template(KINDS[name])
    message = store_message(found, pdu_length).own()
    uid = UidSeries(9, 9).next()
    message.patch(uid)
    request, data = received(message)
    assert request.affected_sop_instance_uid == uid.decode()
    assert request.affected_sop_class_uid == found.kind.sop_class_uid
    assert data == found.head_with(uid) + b"".join(found.frames())
    assert message.data_set_size == len(data)


def test_only_success_counts() -> None:
    """A response with another status, or anything else than a response, is an error and never a fast answer."""
    success = response_pdu(KINDS["ct"].sop_class_uid, UidSeries(1, 1).next())
    check_response(success)
    status = success.index(b"\x00\x00\x00\x09") + 8
    refused = success[:status] + b"\x00\xa7" + success[status + 2 :]
    with pytest.raises(UnexpectedAnswer, match="00a7"):
        check_response(refused)
    with pytest.raises(UnexpectedAnswer, match="07H"):
        check_response(b"\x07\0\0\0\0\4\0\0\0\0\0\0")


def test_a_refused_context_is_noticed() -> None:
    """An association whose one context was not accepted measures nothing."""
    accept = associate_accept("ANY")
    assert accepted_pdu_length(accept) == 16 * 1024
    result = accept.index(b"\x21\x00") + 6
    with pytest.raises(UnexpectedAnswer, match="reason 3"):
        accepted_pdu_length(accept[:result] + b"\x03" + accept[result + 1 :])

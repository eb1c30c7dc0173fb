"""Pixel data as frames, and the codecs, which run in child processes only.

    data set --frames.py--> native frame | codestream --codec.py--> child process --> codestream | native frame
             <--encapsulation.py--                        (codec_process.py, decoders.py, codestream.py)

``form``           what one frame is: rows, columns, samples, bits
``frames``         the frames of a data set, one at a time; offsets in it are never trusted
``encapsulation``  codestreams as a Pixel Data element of undefined length (PS3.5 A.4)
``codestream``     headers of codestreams, read before anything is decoded
``codec``          the worker's side of the codec processes
``decoding``       native frames out of codestreams, by the codec
``digest``         the pixel part of content digest c1
"""

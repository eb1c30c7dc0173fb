"""The data set as bytes: read within bounds, identified, digested, re-encoded; never changed (PS3.5 section 7).

payload           the bytes, in memory or in a file
transfer_syntax   how a transfer syntax encodes them
deflated          inflated within a limit, where it deflates them
byte_order        big endian values as little endian
elements          walks them in every native encoding, within limits
dictionary        what the standard's and vendors' dictionaries say of a tag
pydicom_tables    whence they have it
findings          the closed list of malformations that are noted
identity          which instance it is, its UIDs checked
subject           whose it is, for audit trail and ledger
character_sets    Specific Character Set as Python's codecs
values            values against their VR and character set
pixel_data        what its pixel data claims to be, and whether the bytes agree
digest            content digest c1: the same for every lossless encoding of one object
explicit_vr       the elements as Explicit VR Little Endian, for new pixel data
"""

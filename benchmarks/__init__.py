"""How fast, against whom, and against which limit: every figure is a ratio of arms that alternate in one run.

``data``       seeded instances whose pixels compress like real images      ``load``   the storage SCU
``peers``      the receivers that are compared, ours and others'            ``disk``   what the disk allows
``scenarios``  what is compared with what                                   ``micro``  time per operation
``arms``       alternation, medians and spread                              ``report`` Markdown and JSON
"""

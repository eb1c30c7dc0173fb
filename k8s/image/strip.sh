#!/bin/sh
# Leave of a Debian system with Python what our processes need: no package manager, no compiler, nothing that grants rights, no
# documentation. For a stage whose result is copied.
set -eu
for name in apt apt-get apt-cache apt-config apt-key apt-mark dpkg dpkg-deb dpkg-query dpkg-split dpkg-divert dpkg-statoverride \
    dpkg-trigger pip pip3 gcc g++ cc c++ cpp ld as make perl su mount umount passwd chsh chfn newgrp gpasswd chage expiry; do
    rm -f /usr/bin/"$name" /usr/local/bin/"$name" /bin/"$name" /usr/sbin/"$name"
done
rm -f /opt/dicom-ingest/bin/pip* # the commands of the module that goes below
rm -rf /usr/lib/apt /var/lib/apt /var/cache/apt /etc/apt /usr/lib/dpkg /usr/share/dpkg /var/lib/dpkg /etc/dpkg /var/cache/debconf \
    /usr/share/doc /usr/share/man /usr/share/info /usr/share/locale /usr/share/perl /usr/share/perl5 /usr/lib/*-linux-gnu/perl* \
    /usr/lib/gcc /root/.cache /var/log/apt /var/log/dpkg.log
find / -xdev \( -path /proc -o -path /sys \) -prune -o -type d \( -name ensurepip -o -name 'pip' -o -name 'pip-*.dist-info' -o -name setuptools \
    -o -name 'setuptools-*.dist-info' -o -name pkg_resources \) \
    -exec rm -rf {} +
# No file grants rights that its caller has not.
find / -xdev -type f \( -perm -4000 -o -perm -2000 \) -exec chmod a-s {} +
printf 'dicom:x:10001:10001:dicom-ingest:/var/lib/dicom-ingest:/usr/sbin/nologin\n' >> /etc/passwd
printf 'dicom:x:10001:\n' >> /etc/group
mkdir -p /var/lib/dicom-ingest
chown 10001:10001 /var/lib/dicom-ingest
rm -f /tmp/strip.sh

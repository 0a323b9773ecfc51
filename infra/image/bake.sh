#!/bin/sh
# The image's own part: the program, kernel, guest agent and base image, all there before a host first starts.
set -eux

swapoff -a
test -e /mnt/paddock/host.txt || { echo "paddock: no disk labelled PADDOCK with the wheels"; exit 1; }
python3 -m venv /opt/paddock
# --no-index: only what lies on that disk, the requirements by the hashes of requirements/host.txt.
/opt/paddock/bin/pip install --no-cache-dir --no-index --find-links /mnt/paddock --require-hashes \
  -r /mnt/paddock/host.txt
/opt/paddock/bin/pip install --no-cache-dir --no-index --find-links /mnt/paddock --no-deps \
  /mnt/paddock/paddock-*.whl /mnt/paddock/paddock_worker-*.whl
HOME=/var/lib/paddock XDG_CACHE_HOME=/var/cache /opt/paddock/bin/paddock setup --yes
# Nobody signs in to a host: what went wrong there is in its audit, its log and the console.
apt-get purge -y openssh-server
systemctl enable systemd-resolved.service paddock-host.service
mkdir -p /var/lib/paddock
# The next boot is another machine: new keys, new user data.
rm -f /etc/ssh/ssh_host_* /etc/machine-id && touch /etc/machine-id
cloud-init clean --logs --seed
touch /var/lib/paddock/image-ready
